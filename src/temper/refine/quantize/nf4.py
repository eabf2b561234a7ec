"""NF4: sixteen levels, each met equally often by normally distributed weights, in blocks with one absolute maximum.

Source: Dettmers et al., "QLoRA", arXiv 2305.14314, appendix E. Codes and maxima equal those of bitsandbytes'
`quantize_4bit(..., quant_type="nf4")` bit for bit, so that either reads what the other wrote.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from temper.errors import Invalid
from temper.refine.quantize.grid import Float32

LEVELS: Final = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
"""The quantiles of the normal distribution, scaled to ±1, as bitsandbytes has them."""
_BOUNDS: Final = ((LEVELS[:-1] + LEVELS[1:]) / 2).astype(np.float32)
_SMALLEST: Final = np.float32(1e-38)
BLOCK: Final = 64


def quantize_nf4(values: Float32, block: int = BLOCK) -> tuple[NDArray[np.uint8], Float32]:
    """Packed codes and block maxima of a tensor read row by row.

    Returns:
        uint8 [ceil(n / 2)], the first weight of each pair in the high half, and float32 [ceil(n / block)].

    Raises:
        Invalid: a weight is not finite.
    """
    flat = values.reshape(-1)
    if not np.isfinite(flat).all():
        raise Invalid("weights must be finite to be quantized, but some are not")
    whole = flat.size // block * block
    maxima = np.abs(flat[:whole].reshape(-1, block)).max(axis=1)
    scaled = (flat[:whole].reshape(-1, block) * (1 / np.maximum(maxima, _SMALLEST))[:, None]).reshape(-1)
    if whole < flat.size:  # the last block is divided, not multiplied by the inverse: bitsandbytes' own habit
        last = np.maximum(np.abs(flat[whole:]).max(), _SMALLEST)
        maxima, scaled = np.append(maxima, last), np.append(scaled, flat[whole:] / last)
    codes = np.searchsorted(_BOUNDS, scaled.clip(-1, 1), side="left").astype(np.uint8)
    pairs = np.append(codes, np.uint8(7)) if codes.size % 2 else codes
    return (pairs[0::2] << 4 | pairs[1::2]).astype(np.uint8), maxima


def dequantize_nf4(packed: NDArray[np.uint8], maxima: Float32, shape: tuple[int, ...], block: int = BLOCK) -> Float32:
    """The values that codes and maxima stand for, float32 in `shape`."""
    codes = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)
    size = int(np.prod(shape))
    values = LEVELS[codes[:size]] * np.repeat(maxima, block)[:size]
    return values.reshape(shape).astype(np.float32)
