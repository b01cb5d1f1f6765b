"""What people decide about items, and what it changes: tags, slices of the queries by them, the gain of corrections."""
