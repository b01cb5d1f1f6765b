"""Models that leave the lab: write a run's model as graphs of ONNX or OpenVINO, and search with them without torch."""
