"""The GGUF reader: what it reads is what the gguf package wrote; whatever is broken is refused at once."""

from __future__ import annotations

import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from temper.errors import CheckpointError, MalformedFile
from temper.kernels.stored import BLOCKS
from temper.models.weights.gguf import open_gguf, read_metadata
from tests.tiny_models import write_tiny_gguf

SETTINGS = settings(max_examples=300, deadline=2000, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", quantization="q4_0").read_bytes()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module", autouse=True)
def _little_memory() -> Iterator[None]:
    """A giant allocation fails here instead of eating the machine."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


def opened_or_malformed(path: Path, raw: bytes) -> None:
    """Only two ends are allowed."""
    path.write_bytes(raw)
    try:
        file = open_gguf(path)
    except MalformedFile as error:
        assert str(error).startswith(path.name)
        return
    for tensor in file.tensors.values():
        elements, block_bytes = BLOCKS[tensor.format]
        assert tensor.data.size * elements == int(np.prod(tensor.shape)) * block_bytes


def text(raw: str) -> bytes:
    return struct.pack("<Q", len(raw.encode())) + raw.encode()


def header(tensors: int = 0, entries: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


def info(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0, num_dims: int | None = None) -> bytes:
    count = len(dims) if num_dims is None else num_dims
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", count, *dims, kind, offset)


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"])
def test_tensors_are_those_that_were_written(tmp_path: Path, name: str) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", quantization=name)
    file = open_gguf(path)
    expected = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert set(file.tensors) == set(expected)
    for key, tensor in file.tensors.items():
        assert tensor.shape == tuple(int(dim) for dim in expected[key].shape[::-1])
        assert tensor.data.tobytes() == expected[key].data.tobytes()
        assert tensor.format == (name if len(tensor.shape) == 2 else "f32")


@pytest.mark.parametrize("name", ["q4_k", "q5_k", "q6_k"])
def test_k_quants(tmp_path: Path, name: str) -> None:
    elements, block_bytes = BLOCKS[name]
    raw = np.arange(6 * block_bytes, dtype=np.uint8).reshape(3, 2 * block_bytes)
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_tensor("t", raw, raw_dtype=gguf.GGMLQuantizationType[name.upper()])
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    tensor = open_gguf(tmp_path / "m.gguf").tensors["t"]
    assert (tensor.format, tensor.shape) == (name, (3, 2 * elements))
    assert tensor.data.tobytes() == raw.tobytes()


def test_metadata_of_every_type(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    for bits in (8, 16, 32, 64):
        getattr(writer, f"add_uint{bits}")(f"u{bits}", 2**bits - 1)
        getattr(writer, f"add_int{bits}")(f"i{bits}", -(2 ** (bits - 1)))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "héllo")
    writer.add_array("numbers", [1, 2, 3])
    writer.add_array("texts", ["a", "", "你"])
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    found = read_metadata(tmp_path / "m.gguf")
    assert (found["u64"], found["i64"], found["i8"], found["f32"], found["f64"]) == (
        2**64 - 1,
        -(2**63),
        -128,
        0.5,
        0.1,
    )
    assert (found["yes"], found["text"], found["texts"]) == (True, "héllo", ("a", "", "你"))
    assert list(found["numbers"]) == [1, 2, 3]  # type: ignore[call-overload]


@SETTINGS
@given(data=st.data())
def test_truncated_anywhere(tiny: bytes, room: Path, data: st.DataObject) -> None:
    end = data.draw(st.one_of(st.integers(0, 12_000), st.integers(0, len(tiny) - 1)))
    (room / "cut.gguf").write_bytes(tiny[:end])
    with pytest.raises(MalformedFile):
        open_gguf(room / "cut.gguf")


@SETTINGS
@given(data=st.data())
def test_corrupted_bytes(tiny: bytes, room: Path, data: st.DataObject) -> None:
    raw = bytearray(tiny)
    places = st.one_of(st.integers(0, 2000), st.integers(0, 14_000))
    for at in data.draw(st.lists(places, min_size=1, max_size=6)):
        raw[at] = data.draw(st.integers(0, 255))
    opened_or_malformed(room / "bad.gguf", bytes(raw))


@SETTINGS
@given(data=st.data())
def test_corrupted_numbers(tiny: bytes, room: Path, data: st.DataObject) -> None:
    """Eight bytes at once: lengths, counts and offsets become huge."""
    raw = bytearray(tiny)
    at = data.draw(st.one_of(st.integers(4, 600), st.integers(4, 14_000)))
    value = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1]))
    raw[at : at + 8] = struct.pack("<Q", value)
    opened_or_malformed(room / "bad.gguf", bytes(raw))


@SETTINGS
@given(rest=st.binary(max_size=400), tensors=st.integers(0, 2**64 - 1), entries=st.integers(0, 2**64 - 1))
@example(rest=b"", tensors=2**64 - 1, entries=0)
@example(rest=b"\0" * 399, tensors=1, entries=0)
def test_noise_after_a_header(room: Path, rest: bytes, tensors: int, entries: int) -> None:
    opened_or_malformed(room / "noise.gguf", header(tensors, entries) + rest)
    opened_or_malformed(room / "noise.gguf", header(tensors % 4, entries % 4) + rest)


ONE = 4 * 32 * 8
BROKEN = {
    "no magic": (b"GGML" + header()[4:], "begins with the bytes 'GGUF'"),
    "version 1": (header(version=1), "version must be 2 or 3, got 1"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "only little-endian"),
    "too many tensors": (header(tensors=2**60), "may hold 65536 tensors"),
    "too many entries": (header(entries=2**60), "may hold 65536 metadata entries"),
    "long key": (header(entries=1) + struct.pack("<Q", 2**40), "a metadata key may be 65535 bytes"),
    "key beyond the file": (header(entries=1) + struct.pack("<Q", 1000), "a metadata key must lie inside the file"),
    "key not UTF-8": (header(entries=1) + struct.pack("<Q", 2) + b"\xff\xfe", "must be UTF-8"),
    "value type": (header(entries=1) + text("k") + struct.pack("<I", 13), "must have a known type"),
    "boolean": (header(entries=1) + text("k") + struct.pack("<IB", 7, 2), "must be 0 or 1"),
    "nested array": (header(entries=1) + text("k") + struct.pack("<IIQ", 9, 9, 1), "must not nest arrays"),
    "array type": (header(entries=1) + text("k") + struct.pack("<IIQ", 9, 77, 1), "elements of a known type"),
    "array length": (header(entries=1) + text("k") + struct.pack("<IIQ", 9, 4, 2**50), "may have 16777216 items"),
    "array beyond": (header(entries=1) + text("k") + struct.pack("<IIQ", 9, 4, 2**20), "must lie inside the file"),
    "texts beyond": (header(entries=1) + text("k") + struct.pack("<IIQ", 9, 8, 2**20), "must lie inside the file"),
    "twice a key": (header(entries=2) + (text("k") + struct.pack("<IB", 0, 1)) * 2, "keys must be unique"),
    "no dimensions": (header(tensors=1) + info("t", ()), "must have 1 to 4 dimensions, got 0"),
    "many dimensions": (header(tensors=1) + info("t", (1,) * 5), "must have 1 to 4 dimensions, got 5"),
    "zero dimension": (header(tensors=1) + info("t", (0, 4)), "must lie between 1 and"),
    "overflow": (header(tensors=1) + info("t", (2**40, 2**40, 2**40)), "must lie inside the file"),
    "long name": (header(tensors=1) + info("t" * 300, (4,)), "a tensor name may be 255 bytes"),
    "alignment": (
        header(entries=1) + text("general.alignment") + struct.pack("<II", 4, 48),
        "'general.alignment' must be a power of two",
    ),
    "alignment text": (
        header(entries=1) + text("general.alignment") + struct.pack("<I", 8) + text("32"),
        "'general.alignment' must be a power of two",
    ),
    "offset": (header(tensors=1) + info("t", (4,), offset=7) + bytes(ONE), "must be a multiple of 32"),
    "beyond": (header(tensors=1) + info("t", (4,), offset=2**62) + bytes(ONE), "tensor 't' must lie inside the file"),
    "twice a name": (header(tensors=2) + info("t", (4,)) + info("t", (4,)) + bytes(ONE), "names must be unique"),
    "overlap": (
        header(tensors=2) + info("a", (64,)) + info("b", (64,), offset=32) + bytes(ONE),
        "must not overlap, got 'a' and 'b'",
    ),
    "half a block": (header(tensors=1) + info("t", (33, 2), kind=8) + bytes(ONE), "multiple of 32 long, got 33"),
    "unreadable type": (header(tensors=1) + info("blk.0.x", (256,), kind=10) + bytes(ONE), "'blk.0.x' has type Q2_K"),
    "unknown type": (header(tensors=1) + info("t", (256,), kind=250) + bytes(ONE), "'t' has type number 250"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_names_itself(tmp_path: Path, name: str) -> None:
    raw, message = BROKEN[name]
    (tmp_path / "m.gguf").write_bytes(raw)
    with pytest.raises(MalformedFile, match=message):
        open_gguf(tmp_path / "m.gguf")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(MalformedFile, match="must not be empty"):
        open_gguf(tmp_path / "empty.gguf")
    with pytest.raises(CheckpointError, match="cannot open"):
        open_gguf(tmp_path / "none.gguf")


def test_released_pages_can_be_read_again(tmp_path: Path) -> None:
    file = open_gguf(write_tiny_gguf(tmp_path / "m.gguf"))
    before = {name: tensor.data.tobytes() for name, tensor in file.tensors.items()}
    file.mapped.release()
    assert before == {name: tensor.data.tobytes() for name, tensor in file.tensors.items()}
