"""Judging engines by what a client sees: load, latency, quality, and the statistics under both."""
