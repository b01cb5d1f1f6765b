"""Random changes of a gallery, and what they do to its search."""
