"""The `[lora]` section of a training recipe. Knows no torch."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from pydantic import Field

from temper.profile.section import Section, Tunable

LINEARS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of the architectures that we write."""


class LoraRecipe(Section):
    """y = W x + scale · B (A x), with W frozen. Source: Hu et al., arXiv 2106.09685."""

    rank: Annotated[int, Field(ge=1, le=1024), Tunable(4, 64, "log")] = 16
    """Rows of A, columns of B."""
    alpha: Annotated[float, Field(gt=0, le=4096)] = 32.0
    """scale = alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.3)] = 0.0
    """Share of the inputs of A that is dropped."""
    targets: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = LINEARS
    """Last names of the layers that get matrices."""
    rslora: bool = False
    """scale = alpha / √rank, which keeps large ranks learning (arXiv 2312.03732)."""
    base: Literal["as_is", "nf4"] = "as_is"
    """How the frozen weights of those layers lie in memory: in the run's precision, or on four bits (QLoRA, arXiv
    2305.14314, without its second quantization of the scales)."""

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
