"""Reads safetensors files, one or a sharded set, without trusting them.

The header's length, its JSON, every type, shape and byte range are checked against the file before they
are used; an index may only name files of its own folder. It knows the container only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final, NoReturn

import numpy as np

from temper.errors import CheckpointError, MalformedFile
from temper.kernels.stored import BLOCKS, Format, StoredTensor
from temper.models.weights.mapped import MappedFile

MAX_HEADER_BYTES: Final = 100 << 20
"""As the format's own reader has it."""
MAX_INDEX_BYTES: Final = 100 << 20
MAX_TENSORS: Final = 1 << 17
MAX_SHARDS: Final = 4096
MAX_DIMS: Final = 8
MAX_NAME_BYTES: Final = 512
INDEX_NAME: Final = "model.safetensors.index.json"
SINGLE_NAME: Final = "model.safetensors"

_FORMATS: Final[dict[str, Format]] = {
    "F32": "f32", "F16": "f16", "BF16": "bf16", "U8": "u8", "I8": "i8", "I32": "i32", "I64": "i64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SafetensorsFiles:
    """Open safetensors files and their tensors under the names that they give them."""

    tensors: Mapping[str, StoredTensor]
    mapped: tuple[MappedFile, ...]


def open_folder(folder: Path) -> SafetensorsFiles:
    """The weights of a Hugging Face folder: sharded by an index, or one file.

    Raises:
        CheckpointError: there are none, or a shard is missing.
        MalformedFile: a file breaks a rule of the format.
    """
    index = folder / INDEX_NAME
    if index.is_file():
        return _open_sharded(folder, index)
    single = folder / SINGLE_NAME
    if not single.is_file():
        found = sorted(folder.glob("*.safetensors"))
        if len(found) != 1:
            raise CheckpointError(
                f"'{folder}' must hold {INDEX_NAME}, {SINGLE_NAME}, or one .safetensors file, found {len(found)}",
                hint="check the folder",
            )
        single = found[0]
    return open_file(single)


def open_file(path: Path) -> SafetensorsFiles:
    """Map one file and read its header; tensor data stays in the file until touched.

    Raises:
        MalformedFile: the file breaks a rule of the format, or holds a type we cannot read.
    """
    mapped = MappedFile(path)
    return SafetensorsFiles(MappingProxyType(_tensors(path, mapped)), (mapped,))


def _open_sharded(folder: Path, index: Path) -> SafetensorsFiles:
    """All shards that the index names, each holding exactly what the index says."""
    if index.stat().st_size > MAX_INDEX_BYTES:
        _fail(index, f"the index may be {MAX_INDEX_BYTES} bytes long at most", index.stat().st_size)
    weight_map = _json(index, index.read_bytes()).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or len(weight_map) > MAX_TENSORS:
        _fail(index, f"'weight_map' must be an object with 1 to {MAX_TENSORS} entries", type(weight_map).__name__)
    shards: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        if (
            not isinstance(file, str)
            or not file.endswith(".safetensors")
            or PurePosixPath(file).name != file
            or "\\" in file
            or "\0" in file
        ):
            _fail(index, "a shard must be the name of a .safetensors file in the same folder", repr(file)[:80])
        shards.setdefault(file, []).append(name)
    if len(shards) > MAX_SHARDS:
        _fail(index, f"there may be {MAX_SHARDS} shards at most", len(shards))
    tensors: dict[str, StoredTensor] = {}
    files: list[MappedFile] = []
    for file, names in sorted(shards.items()):
        if not (folder / file).is_file():
            raise CheckpointError(f"shard '{file}' of '{folder}' is missing", hint="fetch the model again")
        opened = open_file(folder / file)
        for name in names:
            if name not in opened.tensors:
                _fail(index, f"tensor '{name[:80]}' must be in '{file}' as the index says", "a file without it")
            tensors[name] = opened.tensors[name]
        files += opened.mapped
    return SafetensorsFiles(MappingProxyType(tensors), tuple(files))


def _tensors(path: Path, mapped: MappedFile) -> dict[str, StoredTensor]:
    """The header's entries, checked, as views of the mapped data."""
    data, size = mapped.data, len(mapped.data)
    if size < 8:
        _fail(path, "a safetensors file begins with 8 bytes of header length", f"{size} bytes in all")
    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > min(MAX_HEADER_BYTES, size - 8):
        _fail(path, f"the header must lie inside the file and under {MAX_HEADER_BYTES} bytes", header_bytes)
    header = _json(path, data[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        _fail(path, f"a file may hold {MAX_TENSORS} tensors at most", len(header))
    base = 8 + header_bytes
    found: dict[str, StoredTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        fmt, shape, begin, end = _entry(path, name, entry, size - base)
        spans.append((begin, end, name))
        found[name] = StoredTensor(name, fmt, shape, np.frombuffer(data, np.uint8, end - begin, base + begin))
    spans.sort()
    for (_, end, name), (begin, _, other) in pairwise(spans):
        if begin != end:
            _fail(path, "tensors must follow each other without gap or overlap", f"'{name[:80]}' then '{other[:80]}'")
    covered = (spans[0][0], spans[-1][1]) if spans else (0, 0)
    if covered != (0, size - base):
        _fail(path, f"tensors must cover all {size - base} bytes of data", f"{covered[0]} to {covered[1]}")
    return found


def _entry(path: Path, name: str, entry: object, size: int) -> tuple[Format, tuple[int, ...], int, int]:
    """Format, shape, begin and end of one entry of a header over `size` bytes of data."""
    what = f"tensor '{name[:80]}'"
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        _fail(path, f"a tensor's name must have 1 to {MAX_NAME_BYTES} bytes", len(name))
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _fail(path, f"{what} must have dtype, shape and data_offsets", repr(entry)[:80])
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    fmt = _FORMATS.get(dtype) if isinstance(dtype, str) else None
    if fmt is None:
        raise MalformedFile(
            f"{path.name}: {what} has type {str(dtype)[:20]!r}; readable are {', '.join(_FORMATS)}",
            hint="use a checkpoint in bf16, f16 or f32",
        )
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMS
        or not all(_whole(dim, 1 << 40) and dim > 0 for dim in shape)
    ):
        _fail(path, f"the shape of {what} must be at most {MAX_DIMS} positive whole numbers", repr(shape)[:80])
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_whole(offset, size) for offset in offsets):
        _fail(path, f"data_offsets of {what} must be two whole numbers up to {size}", repr(offsets)[:80])
    begin, end = offsets
    if end - begin != prod(shape) * BLOCKS[fmt][1]:
        _fail(path, f"{what} of shape {shape} must take {prod(shape) * BLOCKS[fmt][1]} bytes", end - begin)
    return fmt, tuple(shape), begin, end


def _whole(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


def _json(path: Path, raw: bytes) -> dict[str, Any]:
    """A JSON object without repeated keys."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("keys must be unique")
        return found

    try:
        found = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        _fail(path, "the header must be a JSON object", str(error)[:100])
    if not isinstance(found, dict):
        _fail(path, "the header must be a JSON object", type(found).__name__)
    return found


def _fail(path: Path, rule: str, value: object) -> NoReturn:
    raise MalformedFile(f"{path.name}: {rule}, got {value}", hint="the file is damaged or incomplete: fetch it again")
