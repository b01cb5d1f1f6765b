"""Images, items and class-disjoint splits: one file per source, read through `dataset.read_dataset`."""
