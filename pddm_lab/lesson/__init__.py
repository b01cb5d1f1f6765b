"""The lesson as one file that a browser opens without Python: exercises, trainings step by step, and neighbourhoods."""
