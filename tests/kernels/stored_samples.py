"""Random stored tensors of every format, as a file could hold them: any codes, finite scales."""

from __future__ import annotations

from typing import Final

import numpy as np

from temper.kernels.stored import BLOCKS, Format, StoredTensor

FORMATS: Final[tuple[Format, ...]] = (
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_1",
    "q4_k",
    "q5_k",
    "q6_k",
)

HALVES: Final[dict[str, tuple[int, ...]]] = {
    "q8_0": (0,),
    "q4_0": (0,),
    "q4_1": (0, 2),
    "q5_0": (0,),
    "q5_1": (0, 2),
    "q4_k": (0, 2),
    "q5_k": (0, 2),
    "q6_k": (208,),
}
"""Where in a block its float16 numbers lie."""


def stored(fmt: Format, n: int, k: int, seed: int = 0) -> StoredTensor:
    """A tensor [n, k] of that format with values of moderate size."""
    rng = np.random.default_rng(seed)
    if fmt in ("f32", "f16", "bf16"):
        values = rng.standard_normal((n, k)).astype(np.float32)
        if fmt == "f16":
            data = values.astype(np.float16).view(np.uint8)
        elif fmt == "bf16":
            data = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        else:
            data = values.view(np.uint8)
        return StoredTensor("w", fmt, (n, k), data.reshape(-1))
    block_size, block_bytes = BLOCKS[fmt]
    blocks = rng.integers(0, 256, (n * k // block_size, block_bytes), dtype=np.uint8)
    for at in HALVES[fmt]:
        halves = (rng.standard_normal(len(blocks)) * 0.01).astype(np.float16)
        blocks[:, at : at + 2] = halves.view(np.uint8).reshape(-1, 2)
    return StoredTensor("w", fmt, (n, k), blocks.reshape(-1))
