"""The grid that weights are rounded to: few bits, in groups along K that share a scale.

    value = (code - zero) * scale

Symmetric grids have their zero in the middle (code 8 of 16); asymmetric ones choose it per group. Scales have seven
significant bits: float16 and bfloat16 hold them exactly, and float16 also their product with any zero of four bits, so
that every file format stores a grid without loss. Knows matrices, no models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from temper.errors import Invalid

Float32 = NDArray[np.float32]

BITS: Final = (3, 4, 8)
SHRINKS: Final = np.arange(1.0, 0.49, -0.02, dtype=np.float32)
"""Shares of a group's full range that the search tries; smaller scales clip outliers and are finer for the rest."""

_CACHED: Final = 1 << 16
"""Weights that are searched together."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How fine weights are and how many share a scale."""

    bits: int = 4
    group: int = 32
    """Inputs that share a scale; 0: all of a row."""
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise Invalid(f"a grid has {', '.join(map(str, BITS))} bits, but bits is {self.bits}", param="bits")
        if self.group < 0 or self.group % 32:
            raise Invalid(
                f"a group is a multiple of 32 inputs (0: a whole row), but group is {self.group}",
                param="group",
                hint="32, 64 and 128 are the sizes that other engines read",
            )

    @property
    def top(self) -> int:
        """The highest code."""
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero of a symmetric grid."""
        return 1 << (self.bits - 1)

    def bits_per_weight(self, k: int) -> float:
        """Bits in a file for each weight of rows of `k`: codes, a float16 scale and, where there is one, a zero.

        Codes of three bits are packed ten to a word of 32.
        """
        code = 32 / (32 // self.bits)
        return code + (16 + (0 if self.symmetric else code)) / (self.group or k)

    def check(self, name: str, k: int) -> None:
        """Refuse rows whose length the group does not divide.

        Raises:
            Invalid: it does not; the hint names groups that would.
        """
        if self.group and k % self.group:
            fitting = [str(size) for size in (32, 64, 128) if k % size == 0]
            raise Invalid(
                f"a group must divide the inputs of every layer: {self.group} does not divide the {k} of '{name}'",
                param="group",
                hint=f"take {' or '.join(fitting)}" if fitting else "take 0: one scale a row",
            )


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix [N, K] on a grid, in G groups a row."""

    grid: Grid
    codes: NDArray[np.uint8]
    """[N, K]"""
    scales: Float32
    """[N, G], each of seven significant bits."""
    zeros: NDArray[np.uint8]
    """[N, G]"""

    def values(self) -> Float32:
        """What the matrix stands for, float32 [N, K]."""
        grouped = self.codes.reshape(*self.scales.shape, -1).astype(np.float32) - self.zeros[..., None]
        return (grouped * self.scales[..., None]).reshape(self.codes.shape)


def choose_scales(
    weight: Float32, grid: Grid, importance: Float32 | None = None, *, search: bool = True
) -> tuple[Float32, NDArray[np.uint8]]:
    """Scale and zero of each group of `weight` [N, K]: float32 and uint8, both [N, G].

    The search takes, group by group, the share of the full range whose rounding has the least squared error;
    `importance` [K] weighs it (mean squares of the inputs, where they are known). Without it, and for the full range,
    this is plain min-max.
    """
    weights = None if importance is None else _grouped(importance[None], grid)[0]
    rows = max(1, _CACHED // weight.shape[1])  # so that what is computed on the way stays in the processor's cache
    found = [_best(_grouped(weight[at : at + rows], grid), grid, weights, search) for at in range(0, len(weight), rows)]
    scales, zeros = (np.concatenate(part) for part in zip(*found, strict=True))
    return scales.astype(np.float32), zeros.astype(np.uint8)


def _best(groups: Float32, grid: Grid, weights: Float32 | None, search: bool) -> tuple[Float32, Float32]:
    """Scales and zeros [n, G] of `groups` [n, G, S]; `weights` [G, S] weigh the squared errors."""
    best_error: Any = None
    for shrink in SHRINKS if search else SHRINKS[:1]:
        scales, zeros = _full_range(groups, grid, float(shrink))
        if not search:
            return scales, zeros
        off = _codes(groups, scales, zeros, grid)
        off -= zeros[..., None]
        off *= scales[..., None]
        off -= groups
        off *= off
        error = off.sum(axis=-1) if weights is None else np.einsum("ngs,gs->ng", off, weights)
        if best_error is None:
            best_error, best_scales, best_zeros = error, scales, zeros
            continue
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scales, best_zeros = np.where(better, scales, best_scales), np.where(better, zeros, best_zeros)
    return best_scales, best_zeros


def round_to_nearest(
    weight: Float32, grid: Grid, importance: Float32 | None = None, *, search: bool = True
) -> Quantized:
    """Each weight to the nearest point of its group's grid (RTN)."""
    scales, zeros = choose_scales(weight, grid, importance, search=search)
    codes = _codes(_grouped(weight, grid), scales, zeros, grid)
    return Quantized(grid, codes.astype(np.uint8).reshape(weight.shape), scales, zeros)


def _grouped(values: Float32, grid: Grid) -> Float32:
    return values.reshape(values.shape[0], -1, grid.group or values.shape[1])


def _full_range(groups: Float32, grid: Grid, shrink: float) -> tuple[Float32, Float32]:
    """Scales and zeros that cover `shrink` of the range of each group."""
    if grid.symmetric:
        # The grid reaches one step further below zero than above it, so that code 0 meets the largest magnitude
        # only where that is negative; half a step is clipped on the other side at most.
        scales = _stored(np.abs(groups).max(axis=-1) * shrink / (grid.middle - 0.5))
        return scales, np.full_like(scales, grid.middle)
    low, high = np.minimum(groups.min(axis=-1), 0), np.maximum(groups.max(axis=-1), 0)
    scales = _stored((high - low) * shrink / grid.top)
    zeros = np.rint(-low * shrink / np.where(scales == 0, 1, scales)).clip(0, grid.top)
    return scales, zeros


def _codes(groups: Float32, scales: Float32, zeros: Float32 | NDArray[np.uint8], grid: Grid) -> Float32:
    inverse = np.where(scales == 0, 0, 1 / np.where(scales == 0, 1, scales)).astype(np.float32)
    codes: Float32 = groups * inverse[..., None]
    np.rint(codes, out=codes)
    codes += zeros[..., None]
    return np.clip(codes, 0, grid.top, out=codes)


def _stored(scales: NDArray[np.floating[Any]]) -> Float32:
    """Scales rounded to seven significant bits, and to 0 below float16's normal range."""
    mantissa, exponent = np.frexp(scales.astype(np.float32))
    found = np.ldexp(np.rint(mantissa * 128) / 128, exponent).astype(np.float32)
    return np.where(found < np.float32(2.0**-14), np.float32(0), found)
