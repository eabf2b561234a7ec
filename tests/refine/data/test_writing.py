"""Outputs: whole or not there, going on after a kill with the same bytes, and with a manifest that says everything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper.errors import Invalid
from temper.refine.data.reading import records
from temper.refine.data.record import Record, Turn
from temper.refine.data.writing import Output, Recipe, data_sha256, manifest_path, read_manifest

RECIPE = Recipe("test", {"seed": 1})


def record(number: int) -> Record:
    return Record((Turn("user", f"Number {number}?"), Turn("assistant", "é" * (number + 1))), "", None, {"n": number})


class Killed(Exception):
    pass


def run(path: Path, count: int, *, kill_at: int | None = None, note_at: int | None = None) -> dict:
    with Output(path, RECIPE) as out:
        seen = out.state.get("seen", 0)
        for number in range(out.position, count):
            out.write(record(number))
            seen += 1
            if number == note_at:
                out.note(number + 1, {"seen": seen})
            if number == kill_at:
                raise Killed
        assert seen == count
        return out.finish({"kept": count})


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_killed_run_goes_on_with_the_same_bytes(tmp_path: Path, suffix: str):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    whole, broken = tmp_path / f"whole{suffix}", tmp_path / f"broken{suffix}"
    run(whole, 40)
    with pytest.raises(Killed):
        run(broken, 40, note_at=20, kill_at=29)
    assert not broken.exists()
    with pytest.raises(Killed):
        run(broken, 40, note_at=33, kill_at=34)
    manifest = run(broken, 40)
    assert whole.read_bytes() == broken.read_bytes()
    assert manifest["num_records"] == 40
    assert manifest["data_sha256"] == read_manifest(whole)["data_sha256"] == data_sha256(broken)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        name for file in (whole, broken) for name in (file.name, manifest_path(file).name)
    )


def test_what_stands_in_the_way_is_refused(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(Killed):
        run(path, 9, note_at=3, kill_at=5)
    with pytest.raises(Invalid, match="unfinished run with other settings"):
        Output(path, Recipe("test", {"seed": 2}))
    with Output(path, Recipe("test", {"seed": 2}), resume=False) as out:
        assert out.position == 0
        with pytest.raises(Invalid, match="another process is writing"), Output(path, RECIPE, resume=False):
            pass
        out.write(record(1))
        out.finish({})
    with pytest.raises(Invalid, match="is there already"):
        Output(path, RECIPE)
    with pytest.raises(Invalid, match=r"an output is \.jsonl or \.parquet"):
        Output(tmp_path / "a.csv", RECIPE)
    with Output(tmp_path / "b.jsonl", RECIPE) as out, pytest.raises(Invalid, match=r"nothing is left.*too short: 3"):
        out.finish({"dropped": {"too short": {"count": 3}}})


def test_a_broken_note_is_no_note(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(Killed):
        run(path, 9, note_at=3, kill_at=5)
    (tmp_path / ".a.jsonl.note").write_text('{"fingerprint": ')
    assert run(path, 9)["num_records"] == 9


def test_a_manifest_names_inputs_and_their_own_recipe(tmp_path: Path):
    source = tmp_path / "a.jsonl"
    run(source, 3)
    with Output(tmp_path / "b.jsonl", Recipe("copy", {"seed": 7}, (source,))) as out:
        for found in records(source):
            out.write(found)
        manifest = out.finish({"kept": 3})
    (given,) = manifest["inputs"]
    assert (given["name"], given["recipe"]) == ("a.jsonl", "test")
    assert given["data_sha256"] == read_manifest(source)["data_sha256"]
    assert manifest["settings"] == {"seed": 7}
    assert manifest["report"] == {"kept": 3}
    manifest_path(source).write_text(json.dumps({"schema": "other"}))
    with pytest.raises(Invalid, match="must be a manifest"):
        read_manifest(source)


def test_a_changed_input_is_another_run(tmp_path: Path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "x"}\n')
    before = Recipe("copy", {}, (source,)).fingerprint()
    source.write_text('{"text": "xy"}\n')
    assert Recipe("copy", {}, (source,)).fingerprint() != before
