"""The safetensors reader: what it reads is what the library wrote; whatever is broken is refused at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from temper.errors import CheckpointError, MalformedFile
from temper.models.weights.safetensors import INDEX_NAME, open_file, open_folder
from tests.tiny_models import tiny_config, tiny_weights, write_tiny_folder

SETTINGS = settings(max_examples=300, deadline=2000, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("st") / "m.safetensors"
    save_file({"a": np.ones((4, 8), np.float32), "b": np.arange(6, dtype=np.float16)}, path, {"format": "pt"})
    return path.read_bytes()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def opened_or_malformed(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    try:
        files = open_file(path)
    except MalformedFile as error:
        assert path.name in str(error)
        return
    for tensor in files.tensors.values():
        assert tensor.data.size == int(np.prod(tensor.shape)) * {"f32": 4, "f16": 2, "bf16": 2}[tensor.format]


def packed(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_are_those_that_were_written(tmp_path: Path, shards: int) -> None:
    files = open_folder(write_tiny_folder(tmp_path, "qwen2", shards=shards))
    expected = tiny_weights(tiny_config("qwen2"))
    assert set(files.tensors) == set(expected)
    assert len(files.mapped) == shards
    for name, tensor in files.tensors.items():
        np.testing.assert_array_equal(tensor.data.view("<f4").reshape(tensor.shape), expected[name])


@SETTINGS
@given(data=st.data())
def test_truncated_anywhere(tiny: bytes, room: Path, data: st.DataObject) -> None:
    (room / "cut.safetensors").write_bytes(tiny[: data.draw(st.integers(0, len(tiny) - 1))])
    with pytest.raises(MalformedFile):
        open_file(room / "cut.safetensors")


@SETTINGS
@given(data=st.data())
def test_corrupted_bytes(tiny: bytes, room: Path, data: st.DataObject) -> None:
    raw = bytearray(tiny)
    for at in data.draw(st.lists(st.integers(0, 220), min_size=1, max_size=5)):
        raw[at] = data.draw(st.integers(0, 255))
    opened_or_malformed(room / "bad.safetensors", bytes(raw))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["F32", "BF16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
entries = st.fixed_dictionaries({"dtype": json_values, "shape": json_values, "data_offsets": json_values})


@SETTINGS
@given(header=st.dictionaries(st.text(max_size=5), entries | json_values, max_size=3) | json_values)
def test_any_json_as_header(room: Path, header: Any) -> None:
    opened_or_malformed(room / "any.safetensors", packed(header, bytes(16)))


@SETTINGS
@given(raw=st.binary(max_size=100))
def test_noise(room: Path, raw: bytes) -> None:
    opened_or_malformed(room / "noise.safetensors", raw or b"\0")
    opened_or_malformed(room / "noise.safetensors", packed(raw))


BROKEN = {
    "short": (b"\x01\x02", "begins with 8 bytes"),
    "huge header": (b"\xff" * 8 + b"{}", "header must lie inside the file"),
    "not JSON": (packed(b"{nope"), "must be a JSON object"),
    "deep": (packed(b"[" * 100_000), "must be a JSON object"),
    "list": (packed([]), "must be a JSON object, got list"),
    "twice": (packed(b'{"a": 1, "a": 2}'), "keys must be unique"),
    "big number": (packed(b'{"a": ' + b"9" * 5000 + b"}"), "must be a JSON object"),
    "no offsets": (packed({"a": {"dtype": "F32"}}), "must have dtype, shape and data_offsets"),
    "type": (packed({"w": entry("F64")}, bytes(8)), "tensor 'w' has type 'F64'; readable are F32, F16, BF16"),
    "shape": (packed({"w": entry(shape=[-2])}, bytes(8)), "shape of tensor 'w'"),
    "shape type": (packed({"w": entry(shape=[2.0])}, bytes(8)), "shape of tensor 'w'"),
    "bool": (packed({"w": entry(shape=[True])}, bytes(8)), "shape of tensor 'w'"),
    "offsets": (packed({"w": entry(offsets=[0, 99])}, bytes(8)), "two whole numbers up to 8"),
    "backwards": (packed({"w": entry(offsets=[8, 0])}, bytes(8)), "must take 8 bytes"),
    "size": (packed({"w": entry(shape=[3])}, bytes(8)), "must take 12 bytes"),
    "overflow": (packed({"w": entry(shape=[2**40] * 8)}, bytes(8)), "must take"),
    "overlap": (packed({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "without gap or overlap"),
    "gap": (packed({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)), "without gap or overlap"),
    "rest": (packed({"a": entry()}, bytes(20)), "must cover all 20 bytes"),
    "name": (packed({"n" * 600: entry()}, bytes(8)), "name must have 1 to 512 bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_names_itself(tmp_path: Path, name: str) -> None:
    raw, message = BROKEN[name]
    (tmp_path / "m.safetensors").write_bytes(raw)
    with pytest.raises(MalformedFile, match=message):
        open_file(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "'weight_map' must be an object"),
        ({"weight_map": []}, "'weight_map' must be an object"),
        ({"weight_map": {"a": "../other.safetensors"}}, "in the same folder"),
        ({"weight_map": {"a": "/etc/x.safetensors"}}, "in the same folder"),
        ({"weight_map": {"a": "..\\x.safetensors"}}, "in the same folder"),
        ({"weight_map": {"a": "config.json"}}, "in the same folder"),
        ({"weight_map": {"a": 7}}, "in the same folder"),
        ({"weight_map": {"a": "gone.safetensors"}}, "'gone.safetensors' of .* is missing"),
        ({"weight_map": {"zzz": "model-00001-of-00002.safetensors"}}, "tensor 'zzz' must be in"),
    ],
)
def test_a_broken_index(tmp_path: Path, index: dict[str, Any], message: str) -> None:
    write_tiny_folder(tmp_path, shards=2)
    (tmp_path / INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        open_folder(tmp_path)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"must hold model\.safetensors\.index\.json"):
        open_folder(tmp_path)
