"""Low-rank updates of linear layers: what an adapter is to whoever runs a program.

An adapter changes no op. It belongs to weights by name, and whichever linear op multiplies by such a
weight, plain or fused, adds the update to that weight's columns, before bias and residual:

    y += B · (scale · (A · x))

for the rows of a step whose sequence has the adapter (`StepBatch.adapters`), and for no others. `x` is
what the matrices see: normed or gated where the op does that first, and never rounded to int8. Looking a
row up in a table (`embed`) is no product: an update of a tied head does not change the embeddings.

It knows no files and no requests; where adapters come from is `models/adapter.py`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from temper.kernels.fuse import LINEAR_KINDS, num_matrices
from temper.kernels.ops import Op, Program
from temper.kernels.stored import StoredTensor

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LowRank:
    """The update of one weight [N, K]."""

    a: StoredTensor
    """[r, K], f32, f16 or bf16."""
    b: StoredTensor
    """[N, r], likewise."""
    scale: float

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[0]

    @property
    def num_bytes(self) -> int:
        """Of both matrices."""
        return self.a.num_bytes + self.b.num_bytes


Updates = Mapping[str, LowRank]
"""An adapter: weight name → update."""


class PackedAdapter(Protocol):
    """An adapter as one executor wants it."""

    @property
    def num_bytes(self) -> int:
        """What it takes while it is held."""


@runtime_checkable
class TakesAdapters(Protocol):
    """An executor that runs several adapters in one step."""

    def pack_adapter(self, updates: Updates) -> PackedAdapter:
        """Make an adapter ready for this executor. From any thread, also during a step.

        Raises ValueError, naming the weight, where an update does not fit the program.
        """

    def attach_adapter(self, packed: PackedAdapter) -> int:
        """The slot by which `StepBatch.adapters` names it from now on. Between two steps."""

    def detach_adapter(self, slot: int) -> None:
        """Forget it. Between two steps. ValueError if nothing is attached there."""


def linear_weights(op: Op) -> tuple[str, ...]:
    """The matrices of a linear op in the order of their columns; none for other ops."""
    if op.kind not in LINEAR_KINDS:
        return ()
    first = 1 if op.kind == "norm_linear" else 0
    return op.weights[first : first + num_matrices(op)]


def check_updates(program: Program, shapes: Mapping[str, tuple[int, ...]], updates: Updates) -> None:
    """Raise ValueError, naming the weight, where an update does not fit the program's linear ops."""
    weights = {name for op in program for name in linear_weights(op)}
    for name, update in updates.items():
        if name not in weights:
            raise ValueError(f"no linear op multiplies by '{name}', so it cannot be adapted")
        n, k = shapes[name]
        a, b, rank = update.a.shape, update.b.shape, update.rank
        if a != (rank, k) or b != (n, rank) or rank < 1:
            raise ValueError(f"'{name}' [{n}, {k}] takes A [r, {k}] and B [{n}, r]; got {list(a)} and {list(b)}")
        if wrong := next((t.format for t in (update.a, update.b) if t.format not in ("f32", "f16", "bf16")), None):
            raise ValueError(f"the update of '{name}' must be f32, f16 or bf16; got {wrong}")
        if not np.isfinite(update.scale):
            raise ValueError(f"the scale of '{name}' must be a finite number; got {update.scale}")


def low_rank(x: Float32, a: Float32, b: Float32, scale: float) -> Float32:
    """B · (scale · (A · x)) of each row of x [rows, K], by itself: [rows, N]."""
    out = np.empty((x.shape[0], b.shape[0]), np.float32)
    for i, row in enumerate(x):
        out[i] = b @ ((a @ row) * np.float32(scale))
    return out
