"""Losses, mining, objectives, and the loop that trains a run."""
