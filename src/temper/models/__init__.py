"""Checkpoints: from a source string to config, op list, tensors, tokenizer and chat template."""
