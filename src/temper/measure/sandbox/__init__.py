"""Runs programs that nobody has read: a fresh Python process that can compute, and little else."""
