"""Embedded, indexed items on disk: search, layout, and changes."""
