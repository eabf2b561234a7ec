"""Data to train on: one record shape, and what makes, cleans, varies and divides records."""
