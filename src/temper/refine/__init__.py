"""Checkpoint → checkpoint: models shrunk, adapted and taught, each with a manifest of what was done to it."""
