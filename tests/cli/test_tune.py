"""`temper tune` as a command: rehearsals from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper.cli import app
from temper.profile import store
from tests.tuner.studies import MACHINE


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.toml"
    path.write_text(MACHINE)
    return path


def tune(scene: Path, *words: str) -> int:
    common = ["--rehearse", str(scene), "--home", str(scene.parent / "home"), "--no-slo", "--set", "max_sequences=2"]
    knobs = ["--knob", "max_sequences", "--knob", "two_digits", "--ladder", "max_sequences=1,2,4,8,16,32"]
    return app.run(["tune", "many-users", *common, *knobs, *words])


def test_a_rehearsal_gives_a_document_a_profile_and_a_page(scene, capsys, tmp_path):
    saved, page = tmp_path / "winner.toml", tmp_path / "study.html"
    words = ("--budget", "12 trials", "--json", "--save", str(saved), "--html", str(page))
    assert tune(scene, *words) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["schema"] == "temper.tune/1"
    assert {"study", "incumbent", "winner", "verdict", "effect", "interval", "num_trials", "evidence"} <= set(found)
    assert found["verdict"] == "pass"
    assert "self-test" in captured.err
    winner = store.load(saved)
    assert winner.engine.batching.max_sequences == found["winner"]["values"]["engine.batching.max_sequences"]
    assert page.read_text().startswith("<!doctype html>")
    assert app.run(["tune", "--resume", "last", "--home", str(tmp_path / "home"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == found["study"]


def test_what_cannot_be_reached_is_1_and_what_cannot_be_told_is_3(scene, capsys):
    assert tune(scene, "--budget", "8 trials", "--objective", "throughput, ttft p90 < 1 ms") == 1
    assert "binds" in capsys.readouterr().out
    scene.write_text("[figures]\noutput_tokens_per_s = 100.0\n")
    assert tune(scene, "--budget", "3 trials", "--seed", "1") in (1, 3)


@pytest.mark.parametrize(
    "words",
    [["--budget", "soon"], ["--objective", "quality", "--suite", "perplexity"], ["--objective", "speed of light"],
     ["--knob", "nothing"], ["--ladder", "x"], ["--resume", "nothing"], ["--rehearse", "/nowhere.toml"]],
)  # fmt: skip
def test_wrong_usage_is_2_and_says_what_is_right(scene, capsys, words):
    assert tune(scene, *words) == 2
    assert capsys.readouterr().err


def test_without_a_workload_there_is_nothing_to_tune_for(capsys, tmp_path):
    assert app.run(["tune", "--home", str(tmp_path)]) == 2
    assert "workload" in capsys.readouterr().err
