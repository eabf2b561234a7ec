"""AWQ: the inputs that carry most are scaled up before rounding, and the scale is folded into what made them.

Source: Lin et al., "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978: s = mean|x|^α per input, α searched
on the output error of the layers that share the inputs; clipping is part of the grid's own search. The model computes
the same function before rounding: W·diag(s) sees x/s, and 1/s goes into the norm (or the projection) before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from temper.refine.quantize.grid import Float32, Grid, round_to_nearest

ALPHAS: Final = tuple(step / 20 for step in range(21))
"""0 scales nothing; 1 gives every input the same size."""
SEARCH_ROWS: Final = 256
"""Outputs of each layer, evenly taken, on which scales are judged: enough to tell them apart, and cheap."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What calibration saw at the inputs of one layer, or of several that share them."""

    second_moments: NDArray[np.float64]
    """Mean of x·xᵀ, [K, K]."""
    mean_magnitude: Float32
    """Mean of |x|, [K]."""
    chance: float = 0.0
    """Which share of the squared moments off the diagonal other text would not repeat, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """The scale that was found."""

    scales: Float32
    """[K]: weights are multiplied by it, inputs divided."""
    alpha: float
    error: float
    """Mean squared change of the outputs, over that of rounding without scaling."""


def search_scales(weights: Sequence[Float32], inputs: Inputs, grid: Grid) -> Scaling:
    """The scale for layers [N, K] that read the same `inputs`, by the error of all their outputs together."""
    magnitude = np.maximum(inputs.mean_magnitude, 1e-8)
    moments = inputs.second_moments.astype(np.float32)
    shown = [weight[:: -(-len(weight) // SEARCH_ROWS)] for weight in weights]

    def tried(alpha: float) -> tuple[float, float, Float32]:
        scales = magnitude**alpha
        scales = (scales / np.sqrt(scales.max() * scales.min())).astype(np.float32)
        return sum(_output_error(weight, scales, moments, grid) for weight in shown), alpha, scales

    trials = [tried(alpha) for alpha in ALPHAS]
    plain = trials[0][0]
    error, alpha, scales = min(trials, key=lambda trial: trial[0])
    return Scaling(scales, alpha, error / plain if plain > 0 else 1.0)


def _output_error(weight: Float32, scales: Float32, moments: Float32, grid: Grid) -> float:
    """Mean over inputs of |(W - W')x|², summed over outputs: the trace of D·M·Dᵀ."""
    rounded = round_to_nearest(weight * scales, grid, search=False).values() / scales
    off = rounded - weight
    return float(np.vdot(off @ moments, off))


def fold(tensors: Mapping[str, Float32], scales: Float32, readers: Sequence[str], maker: str) -> dict[str, Float32]:
    """The tensors that change when `scales` [K] move from `maker` into its `readers`.

    `maker` is the vector of the norm [K], or the projection [K, M] whose outputs the readers see.
    """
    before = tensors[maker]
    changed = {maker: (before / (scales if before.ndim == 1 else scales[:, None])).astype(np.float32)}
    changed |= {name: (tensors[name] * scales).astype(np.float32) for name in readers}
    return changed
