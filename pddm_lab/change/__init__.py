"""A range that changes: what new queries, and pictures of another quality, do to a run."""
