"""Ways through a product: the same bits, and a machine that is asked once which is the fastest."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from temper.kernels import _native, sweeps
from tests.kernels.stored_samples import stored

QUANTIZED = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k")
ISA = _native.kernel_sets()[0]


def packed(fmt: str, n: int = 70, k: int = 512) -> _native.PackedWeight:
    tensor = stored(fmt, n, k, 1)
    return _native.PackedWeight(tensor.format, tensor.data, *tensor.shape)


@pytest.mark.parametrize("isa", _native.kernel_sets())
@pytest.mark.parametrize("fmt", QUANTIZED)
def test_every_sweep_gives_the_same_bits(fmt: str, isa: str):
    weight = packed(fmt)
    for rows in (1, 7, 13, 50):
        x = np.random.default_rng(rows).standard_normal((rows, 512)).astype(np.float32)
        usual = _native.linear(weight, x, isa)
        for sweep in ("direct", "panel", "pair"):
            np.testing.assert_array_equal(_native.linear(weight, x, isa, sweep=sweep), usual)


def test_a_sweep_that_is_none():
    with pytest.raises(ValueError, match="auto, direct, panel or pair"):
        _native.linear(packed("q8_0"), np.zeros((1, 512), np.float32), ISA, sweep="diagonal")


def test_no_more_is_swept_than_asked_for():
    weights = [packed("q8_0", 4096)] * 8
    whole = min(_native.time_linear(weights, 8, ISA, 1, 3))
    part = min(_native.time_linear(weights, 8, ISA, 1, 3, most_bytes=weights[0].num_bytes // 8))
    assert part < whole / 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """A machine on which panels win from 12 rows on and pairs from 48 on; the sweeps that were timed."""
    asked: list[tuple[str, int, str]] = []

    def seconds(weights, rows, isa, threads, repeats, *, sweep, most_bytes):
        asked.append((weights[0].format, rows, sweep))
        panel = 1 + (rows - 12) / 100
        return [{"direct": rows / 12, "panel": panel, "pair": panel - 0.1 + (rows < 48)}[sweep]]

    monkeypatch.setattr(_native, "time_linear", seconds)
    monkeypatch.setattr(_native, "sweep_rows", lambda isa: (9, 64))
    return asked


def test_the_crossings_are_found(clock):
    assert sweeps.measured([packed("q8_0")], "avx512", 2) == (16, 48)


def test_a_set_without_a_sweep_never_takes_it(clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_native, "sweep_rows", lambda isa: (17, _native.NEVER))
    assert sweeps.measured([packed("q8_0")], "avx2", 2) == (16, _native.NEVER)
    monkeypatch.setattr(_native, "sweep_rows", lambda isa: (_native.NEVER, _native.NEVER))
    clock.clear()
    assert sweeps.measured([packed("q8_0")], "scalar", 2) == (_native.NEVER, _native.NEVER)
    assert clock == []


def test_what_was_measured_is_remembered_by_format_and_machine(clock, tmp_path: Path):
    q8, q4 = packed("q8_0"), packed("q4_0")
    assert sweeps.fastest([q8, q8], "avx512", 2, tmp_path) == {"q8": (16, 48)}
    clock.clear()
    assert sweeps.fastest([q8, q4], "avx512", 2, tmp_path) == {"q8": (16, 48), "q4": (16, 48)}
    assert {fmt for fmt, _, _ in clock} == {"q4"}
    clock.clear()
    assert sweeps.fastest([q4], "avx512", 2, tmp_path) == {"q4": (16, 48)}
    assert clock == []
    sweeps.fastest([q4], "avx512", 1, tmp_path)
    assert clock


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"rows": {"q8": [3]}, "machine": {}}', '{"rows": 5, "machine": {}}']
)
def test_a_file_that_is_none_is_made_anew(clock, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture):
    sweeps.fastest([packed("q8_0")], "avx512", 2, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert sweeps.fastest([packed("q8_0")], "avx512", 2, tmp_path) == {"q8": (16, 48)}
    assert str(path) in caplog.text
    assert json.loads(path.read_text())["rows"] == {"q8": [16, 48]}


def test_rows_out_of_order_are_not_believed(clock, tmp_path: Path):
    sweeps.fastest([packed("q8_0")], "avx512", 2, tmp_path)
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"rows": {"q8": [60, 3]}}))
    assert sweeps.fastest([packed("q8_0")], "avx512", 2, tmp_path) == {"q8": (16, 48)}


def test_a_folder_that_cannot_be_written_is_done_without(clock, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert sweeps.fastest([packed("q8_0")], "avx512", 2, tmp_path / "file" / "sweeps") == {"q8": (16, 48)}
