"""Engines over engines: one request, several places where it can be answered."""
