"""Robustness: how a run ranks pictures that are corrupted, and things that are turned."""
