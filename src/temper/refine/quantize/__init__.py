"""Weights in few bits: the grid, the algorithms that choose codes on it, and what they need to know of a model."""
