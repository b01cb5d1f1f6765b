"""Small worlds for teaching: points on a plane, and trainings that take seconds."""
