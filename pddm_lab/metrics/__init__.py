"""Retrieval, separation, density, convergence and class margins, from arrays."""
