"""Runs on disk: what a training writes and what everything else reads."""
