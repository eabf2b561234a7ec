"""Reads GGUF files (versions 2 and 3) without trusting them.

Every count, length, type and offset is checked against the size of the file and against a cap before
it is used, so a broken or hostile file ends in `MalformedFile` and never in a crash or a giant
allocation. It knows the container only: which tensors and metadata a model needs is not its business.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from temper.errors import MalformedFile
from temper.kernels.stored import BLOCKS, Format, StoredTensor
from temper.models.weights.mapped import MappedFile

Value = bool | int | float | str | tuple["Value", ...] | NDArray[np.generic]
"""A metadata value: a scalar, a tuple of strings, or a flat array of numbers."""

MAX_TENSORS: Final = 1 << 16
MAX_ENTRIES: Final = 1 << 16
MAX_KEY_BYTES: Final = (1 << 16) - 1
MAX_NAME_BYTES: Final = 255
MAX_STRING_BYTES: Final = 16 << 20
MAX_ARRAY_ITEMS: Final = 1 << 24
MAX_DIMS: Final = 4
MAX_DIM: Final = 1 << 40
MAX_ALIGNMENT: Final = 1 << 20

_STRING: Final = 8
_ARRAY: Final = 9
_BOOL: Final = 7
_SCALARS: Final[dict[int, str]] = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "<u1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_FORMATS: Final[dict[int, Format]] = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 12: "q4_k", 13: "q5_k", 14: "q6_k",
    30: "bf16",
}  # fmt: skip
_KNOWN_TYPES: Final[dict[int, str]] = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufFile:
    """An open GGUF file: its metadata, and its tensors under the names that the file gives them."""

    metadata: Mapping[str, Value]
    tensors: Mapping[str, StoredTensor]
    mapped: MappedFile


def open_gguf(path: Path) -> GgufFile:
    """Map `path` and read its header; tensor data stays in the file until touched.

    Raises:
        MalformedFile: the file breaks a rule of the format, or holds a tensor type we cannot read.
    """
    mapped = MappedFile(path)
    reader = _Reader(path, mapped.data)
    num_tensors, num_entries = reader.header()
    metadata = reader.metadata(num_entries)
    tensors = reader.tensors(num_tensors, metadata)
    return GgufFile(MappingProxyType(metadata), MappingProxyType(tensors), mapped)


def read_metadata(path: Path) -> Mapping[str, Value]:
    """The metadata alone: also of a file whose tensor data is cut off or stored elsewhere.

    Raises:
        MalformedFile: the header or the metadata breaks a rule of the format.
    """
    reader = _Reader(path, MappedFile(path).data)
    _, num_entries = reader.header()
    return MappingProxyType(reader.metadata(num_entries))


class _Reader:
    """A cursor over the mapped bytes that never reads past their end."""

    def __init__(self, path: Path, data: mmap.mmap | bytes) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.at = 0

    def fail(self, rule: str, value: object) -> NoReturn:
        raise MalformedFile(
            f"{self.path.name}: {rule}, got {value} (near byte {self.at} of {self.size})",
            hint="the file is damaged, incomplete, or no GGUF file: fetch it again",
        )

    def take(self, count: int, what: str) -> int:
        """Reserve `count` bytes; returns where they start."""
        start = self.at
        if count > self.size - start:
            self.fail(f"{what} must lie inside the file", f"{count} bytes with {self.size - start} left")
        self.at = start + count
        return start

    def u32(self, what: str) -> int:
        return int.from_bytes(self.data[(at := self.take(4, what)) : at + 4], "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.data[(at := self.take(8, what)) : at + 8], "little")

    def string(self, what: str, limit: int) -> str:
        length = self.u64(f"the length of {what}")
        if length > limit:
            self.fail(f"{what} may be {limit} bytes long at most", length)
        start = self.take(length, what)
        raw = bytes(self.data[start : start + length])
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} must be UTF-8", raw[:32])

    def header(self) -> tuple[int, int]:
        """Magic, version and the two counts."""
        if (magic := bytes(self.data[0:4])) != b"GGUF":
            self.fail("a GGUF file begins with the bytes 'GGUF'", magic)
        self.at = 4
        version = self.u32("the version")
        if version in (2 << 24, 3 << 24):
            self.fail("only little-endian GGUF files are supported", "a big-endian one")
        if version not in (2, 3):
            self.fail("the GGUF version must be 2 or 3", version)
        num_tensors = self.u64("the tensor count")
        num_entries = self.u64("the metadata count")
        if num_tensors > MAX_TENSORS:
            self.fail(f"a file may hold {MAX_TENSORS} tensors at most", num_tensors)
        if num_entries > MAX_ENTRIES:
            self.fail(f"a file may hold {MAX_ENTRIES} metadata entries at most", num_entries)
        return num_tensors, num_entries

    def metadata(self, count: int) -> dict[str, Value]:
        """The key/value section."""
        entries: dict[str, Value] = {}
        for _ in range(count):
            key = self.string("a metadata key", MAX_KEY_BYTES)
            if key in entries:
                self.fail("metadata keys must be unique", repr(key))
            entries[key] = self.value(f"metadata '{key[:80]}'", self.u32(f"the type of '{key[:80]}'"))
        return entries

    def value(self, what: str, kind: int) -> Value:
        """One metadata value of type `kind`."""
        if kind == _STRING:
            return self.string(what, MAX_STRING_BYTES)
        if kind == _ARRAY:
            return self.array(what)
        if kind not in _SCALARS:
            self.fail(f"{what} must have a known type (0 to 12)", kind)
        number = self.numbers(what, kind, 1)[0].item()
        return bool(number) if kind == _BOOL else number

    def numbers(self, what: str, kind: int, count: int) -> NDArray[np.generic]:
        dtype = np.dtype(_SCALARS[kind])
        start = self.take(count * dtype.itemsize, what)
        found = np.frombuffer(self.data, dtype, count, start).copy()
        if kind == _BOOL and found.size and found.max() > 1:
            self.fail(f"{what} is boolean and must be 0 or 1", int(found.max()))
        return found

    def array(self, what: str) -> Value:
        kind = self.u32(f"the element type of {what}")
        count = self.u64(f"the length of {what}")
        if kind == _ARRAY:
            self.fail(f"{what} must not nest arrays", "an array of arrays")
        if kind != _STRING and kind not in _SCALARS:
            self.fail(f"{what} must have elements of a known type (0 to 12)", kind)
        if count > MAX_ARRAY_ITEMS:
            self.fail(f"{what} may have {MAX_ARRAY_ITEMS} items at most", count)
        if kind == _STRING:
            return self.strings(what, count)
        return self.numbers(what, kind, count)

    def strings(self, what: str, count: int) -> tuple[str, ...]:
        """An array of strings; the tight loop reads vocabularies of 150,000 entries in tens of ms."""
        if count * 8 > self.size - self.at:
            self.fail(f"{what} must lie inside the file", f"{count} strings with {self.size - self.at} bytes left")
        data, at, size = self.data, self.at, self.size
        length_at: Callable[..., tuple[int]] = struct.Struct("<Q").unpack_from
        found: list[str] = []
        try:
            for _ in range(count):
                (length,) = length_at(data, at)
                end = at + 8 + length
                if length > MAX_STRING_BYTES or end > size:
                    self.at = at
                    self.fail(f"strings of {what} must lie inside the file and under {MAX_STRING_BYTES} bytes", length)
                found.append(data[at + 8 : end].decode("utf-8"))
                at = end
        except struct.error:
            self.at = at
            self.fail(f"strings of {what} must lie inside the file", f"{len(found)} of {count} strings")
        except UnicodeDecodeError:
            self.at = at
            self.fail(f"strings of {what} must be UTF-8", bytes(data[at + 8 : end])[:32])
        self.at = at
        return tuple(found)

    def tensors(self, count: int, metadata: Mapping[str, Value]) -> dict[str, StoredTensor]:
        """The tensor table, each entry checked, and views of the data."""
        infos = [self.tensor_info() for _ in range(count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            self.fail(f"'general.alignment' must be a power of two up to {MAX_ALIGNMENT}", alignment)
        base = (self.at + alignment - 1) // alignment * alignment
        found: dict[str, StoredTensor] = {}
        spans: list[tuple[int, int, str]] = []
        for name, shape, type_id, offset in infos:
            if name in found:
                self.fail("tensor names must be unique", repr(name))
            fmt = _FORMATS.get(type_id)
            if fmt is None:
                known = _KNOWN_TYPES.get(type_id, f"number {type_id}")
                raise MalformedFile(
                    f"{self.path.name}: tensor '{name}' has type {known}; readable are {', '.join(BLOCKS)}",
                    hint="use a file quantized to one of these types",
                )
            elements, block_bytes = BLOCKS[fmt]
            if shape[-1] % elements:
                self.fail(f"rows of tensor '{name}' ({fmt}) must be a multiple of {elements} long", shape[-1])
            num_bytes = prod(shape) // elements * block_bytes
            if offset % alignment:
                self.fail(f"the offset of tensor '{name}' must be a multiple of {alignment}", offset)
            if base + offset + num_bytes > self.size:
                self.fail(f"tensor '{name}' must lie inside the file", f"bytes {base + offset} + {num_bytes}")
            spans.append((offset, offset + num_bytes, name))
            data = np.frombuffer(self.data, np.uint8, num_bytes, base + offset)
            found[name] = StoredTensor(name, fmt, shape, data)
        spans.sort()
        for (_, end, name), (start, _, other) in pairwise(spans):
            if start < end:
                self.fail("tensors must not overlap", f"'{name}' and '{other}'")
        return found

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, row-major shape, type number, and offset in the data section."""
        name = self.string("a tensor name", MAX_NAME_BYTES)
        num_dims = self.u32(f"the dimension count of tensor '{name}'")
        if not 1 <= num_dims <= MAX_DIMS:
            self.fail(f"tensor '{name}' must have 1 to {MAX_DIMS} dimensions", num_dims)
        dims = tuple(self.u64(f"a dimension of tensor '{name}'") for _ in range(num_dims))
        if not all(1 <= dim <= MAX_DIM for dim in dims):
            self.fail(f"dimensions of tensor '{name}' must lie between 1 and {MAX_DIM}", dims)
        type_id = self.u32(f"the type of tensor '{name}'")
        return name, dims[::-1], type_id, self.u64(f"the offset of tensor '{name}'")
