"""How refined checkpoints are written: Hugging Face folders, packed weights, GGUF."""
