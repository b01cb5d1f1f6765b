"""PDDM Lab: train a local similarity, compare it with a global distance, find out why an image was retrieved."""

import os

# Before torch is imported: its idle threads then sleep instead of spinning. With more busy processes than cores (a page
# beside a training, a neighbour on the machine) spinning was measured to make scoring ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
