"""Those that train together: processes with the same weights, each with its share of every step's micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Peers(Protocol):
    """One process's view of all. Every process calls the same methods in the same order."""

    rank: int
    size: int

    def add_gradients(self, gradients: Sequence[Tensor], step: int) -> None:
        """Put the sum over all processes in place of each gradient; may be lossy, the same for all."""

    def add_numbers(self, numbers: Sequence[float]) -> list[float]:
        """The sum over all processes of each number."""

    def state(self) -> dict[str, Tensor]:
        """What this process must keep for an exact resume."""

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state`."""


class Alone:
    """A single process."""

    rank = 0
    size = 1

    def add_gradients(self, gradients: Sequence[Tensor], step: int) -> None:
        """Nothing to add."""

    def add_numbers(self, numbers: Sequence[float]) -> list[float]:
        """As they are."""
        return list(numbers)

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Nothing."""
