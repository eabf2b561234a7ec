"""The torch engine: any transformers model under our own loop, CPU or CUDA. The reference for fidelity.

Scheduling, paging, output and the keyed sampler are those of the native engine, so the same seeded
request makes the same choices from the same logits; what differs is who computes the logits. Importing
this package imports no torch: `load.py` does that when an engine is started.
"""
