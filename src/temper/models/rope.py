"""Rotary positions: the inverse frequencies of each pair, with every kind of context stretching."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from temper.kernels.config import ModelConfig, RopeScaling

INV_FREQ: Final = "rope.inv_freq"
"""Name of the tensor that the rope ops read, float32 [head_dim / 2]."""


def inverse_frequencies(config: ModelConfig, freq_factors: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Angle per position of each rotary pair, float32 [head_dim / 2].

    `freq_factors` [head_dim / 2] divide the result where the file carries them.
    """
    dim = config.head_dim
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    plain = (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        found = plain
    elif scaling.kind == "linear":
        found = plain / np.float32(scaling.factor)
    elif scaling.kind == "llama3":
        found = _llama3(plain, scaling)
    else:
        found = _yarn(plain, scaling, config.rope_theta)
    if freq_factors is not None:
        found = found / freq_factors
    return found.astype(np.float32)


def attention_factor(config: ModelConfig) -> float:
    """What queries and keys are multiplied by while rotating: 1 unless YaRN asks for more."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 1.0 if scaling.factor <= 1 else 0.1 * math.log(scaling.factor) + 1.0


def _llama3(plain: NDArray[np.float32], scaling: RopeScaling) -> NDArray[np.float32]:
    """Long waves are slowed by `factor`, short ones kept, those between blended."""
    wavelength = 2 * math.pi / plain
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    slowed = plain / scaling.factor
    smooth = (scaling.original_context / wavelength - low) / (high - low)
    blended = (1 - smooth) * slowed + smooth * plain
    found = np.where(wavelength > scaling.original_context / low, slowed, blended)
    return np.where(wavelength < scaling.original_context / high, plain, found).astype(np.float32)


def _yarn(plain: NDArray[np.float32], scaling: RopeScaling, theta: float) -> NDArray[np.float32]:
    """NTK by parts: pairs that turn often are kept, pairs that turn rarely are stretched by `factor`."""
    dim = 2 * len(plain)

    def pair_turning(times: float) -> float:
        return dim * math.log(scaling.original_context / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_turning(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_turning(scaling.beta_slow)), dim - 1)
    ramp = np.clip((np.arange(len(plain)) - low) / max(high - low, 0.001), 0, 1)
    return (plain / scaling.factor * ramp + plain * (1 - ramp)).astype(np.float32)
