"""Measurements of the lab's own speed, as tables and as JSON."""
