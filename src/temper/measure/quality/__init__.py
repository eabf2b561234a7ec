"""How good answers are: perplexity and what is built on it."""
