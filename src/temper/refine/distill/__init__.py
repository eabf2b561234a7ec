"""Distillation: a smaller network learns to predict what a larger one does."""
