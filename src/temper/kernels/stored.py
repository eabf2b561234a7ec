"""A tensor as a file holds it: named, shaped, still in the file's own format and memory map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Format = Literal[
    "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k", "u8", "i8", "i32",
    "i64",
]  # fmt: skip
"""The integers are parts of packed weights, which `models/weights` puts together; no op reads them."""

BLOCKS: Final[dict[str, tuple[int, int]]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q4_k": (256, 144),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "u8": (1, 1),
    "i8": (1, 1),
    "i32": (1, 4),
    "i64": (1, 8),
}
"""Elements and bytes of one block of each format, as GGUF lays them out."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """`data` is uint8, flat, backed by the file's memory map; rows are contiguous, blocks run along K."""

    name: str
    format: Format
    shape: tuple[int, ...]
    """Row-major: a linear layer is (N outputs, K inputs), a norm (S,)."""
    data: NDArray[np.uint8]

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return int(self.data.size)
