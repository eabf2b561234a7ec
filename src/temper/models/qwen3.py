"""Qwen3: Llama with an rms_norm over each head's queries and keys before they are rotated."""

from temper.kernels.config import ModelConfig
from temper.kernels.ops import Program
from temper.models import decoder

GGUF_ROPE_INTERLEAVED = False

_VARIANT = decoder.Variant(head_norm=True)


def program(config: ModelConfig) -> Program:
    """The op list."""
    return decoder.decoder_program(config, _VARIANT)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that the op list reads, with its row-major shape."""
    return decoder.tensor_shapes(config, _VARIANT)
