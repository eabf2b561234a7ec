"""Arithmetic under the verdicts: percentiles, proportions, ratios."""
