"""Readers of weight files: GGUF and safetensors, neither trusted."""
