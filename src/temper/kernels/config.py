"""ModelConfig: the numbers that describe a network, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Stretching of rotary positions beyond the trained context.

    `linear`: divide positions by `factor`. `llama3`: by frequency bands. `yarn`: NTK by parts
    (arXiv 2309.00071).
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_context: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer. Sizes in elements."""

    architecture: str
    """HF `model_type`: the file in `models/` that emits its op list."""
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_size: int
    vocab_size: int
    context_length: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    rope_interleaved: bool = False
    """True where rotary pairs are neighbours (GGUF files of llama), False for halves (Hugging Face)."""
    tied_embeddings: bool = False

    @property
    def kv_width(self) -> int:
        """Elements of one token's keys in one layer; its values are as many."""
        return self.num_kv_heads * self.head_dim
