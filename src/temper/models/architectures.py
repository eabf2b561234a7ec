"""The table of architectures: from a Hugging Face `model_type` to the module that writes it down."""

from __future__ import annotations

from importlib import import_module
from typing import Final, Protocol, cast

from temper.errors import CheckpointError
from temper.kernels.config import ModelConfig
from temper.kernels.ops import Program

ARCHITECTURES: Final = {
    "llama": "temper.models.llama",
    "qwen2": "temper.models.qwen2",
    "qwen3": "temper.models.qwen3",
}


class Architecture(Protocol):
    """What a module in the table offers."""

    GGUF_ROPE_INTERLEAVED: bool
    """Whether GGUF files of this architecture keep rotary pairs as neighbours."""

    def program(self, config: ModelConfig) -> Program:
        """The op list."""

    def tensor_shapes(self, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """Every tensor that the op list reads, with its row-major shape."""


def architecture(name: str) -> Architecture:
    """The module that knows `name`.

    Raises:
        CheckpointError: no module does.
    """
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"architecture '{name}' is not supported; supported are {', '.join(sorted(ARCHITECTURES))}",
            hint="use a checkpoint of one of these",
        )
    return cast(Architecture, import_module(ARCHITECTURES[name]))
