"""PDDM Lab: train a local similarity, compare it with a global distance, find out why an image was retrieved."""

__version__ = "0.1.0"
