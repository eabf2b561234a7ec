"""OpenVINO GenAI as an engine: its continuous batching between our door and our output.

GenAI schedules, caches, computes and samples; tokenizing, templates, stop strings, the thinking split
and budgets are the native engine's own. Importing this package imports no OpenVINO: `load.py` does that
when an engine is started.
"""
