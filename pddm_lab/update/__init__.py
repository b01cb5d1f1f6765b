"""A range that changes: train a run on with new classes, choose which model serves, and compare ways to do so."""
