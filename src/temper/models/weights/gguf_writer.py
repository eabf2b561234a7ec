"""Writes GGUF files (version 3): metadata and tensors in the formats that `gguf` reads. It knows the container only."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from temper.kernels.stored import StoredTensor

ALIGNMENT: Final = 32
TYPES: Final[dict[str, int]] = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q4_k": 12, "q5_k": 13, "q6_k": 14,
    "bf16": 30,
}  # fmt: skip
"""GGML's number of each format."""
_ARRAY_TYPES: Final[dict[str, int]] = {"float32": 6, "int32": 5, "uint32": 4}

Value = bool | int | float | str | Sequence[str] | NDArray[Any]
"""Whole numbers are written as 32 bits without sign, others as float32."""


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Sequence[StoredTensor]) -> None:
    """Write the file whole or not at all; tensors keep their order and bytes.

    Raises:
        ValueError: a tensor's format, or a value's type, has no place in GGUF.
    """
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_text(key))
            _write_value(file, value)
        for tensor, offset in zip(tensors, _offsets(tensors), strict=True):
            if tensor.format not in TYPES:
                raise ValueError(f"GGUF has no format {tensor.format} ('{tensor.name}')")
            dims = tensor.shape[::-1]
            file.write(_text(tensor.name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
            file.write(struct.pack("<IQ", TYPES[tensor.format], offset))
        for tensor in tensors:
            _pad(file)
            file.write(np.ascontiguousarray(tensor.data).tobytes())
        _pad(file)
    part.replace(path)


def _offsets(tensors: Sequence[StoredTensor]) -> Iterator[int]:
    at = 0
    for tensor in tensors:
        yield at
        at += -(-tensor.num_bytes // ALIGNMENT) * ALIGNMENT


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _write_value(file: BinaryIO, value: Value) -> None:
    if isinstance(value, bool):
        file.write(struct.pack("<IB", 7, value))
    elif isinstance(value, int):
        file.write(struct.pack("<II", 4, value))
    elif isinstance(value, float):
        file.write(struct.pack("<If", 6, value))
    elif isinstance(value, str):
        file.write(struct.pack("<I", 8) + _text(value))
    elif isinstance(value, np.ndarray):
        if value.dtype.name not in _ARRAY_TYPES:
            raise ValueError(f"arrays in GGUF are {', '.join(_ARRAY_TYPES)} here, got {value.dtype}")
        file.write(struct.pack("<IIQ", 9, _ARRAY_TYPES[value.dtype.name], value.size) + value.tobytes())
    else:
        file.write(struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value)))
