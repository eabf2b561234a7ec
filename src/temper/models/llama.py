"""Llama: the plain decoder. SmolLM2 and the Llama distils of DeepSeek-R1 are of this kind."""

from temper.kernels.config import ModelConfig
from temper.kernels.ops import Program
from temper.models import decoder

GGUF_ROPE_INTERLEAVED = True
"""Converters to GGUF permute the rows of q and k so that rotary pairs become neighbours."""

_VARIANT = decoder.Variant()


def program(config: ModelConfig) -> Program:
    """The op list."""
    return decoder.decoder_program(config, _VARIANT)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that the op list reads, with its row-major shape."""
    return decoder.tensor_shapes(config, _VARIANT)
