"""`temper eval` as it is typed, on the fake engine."""

from __future__ import annotations

import json

import pytest

from temper.cli.app import run
from temper.measure.quality.ratings import FILE, Rating, Ratings

ECHO = ["eval", "--engine", "fake:fixed:Answer: yes", "--seed", "4", "--count", "12"]


def test_tables_for_people(capsys):
    assert run([*ECHO, "--suite", "logic,writing"]) == 0
    out = capsys.readouterr().out
    for part in ("correct", "repetition", "cut off", "CPU seconds", "the same items again with --seed 4"):
        assert part in out


def test_one_document_for_programs(capsys):
    assert run([*ECHO, "--suite", "logic", "--price-per-hour", "1.5", "--temperature", "0", "--answers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["seed"]) == ("temper.eval/1", 4)
    (suite,) = found["suites"]
    assert suite["metrics"]["correct"]["method"] == "Wilson"
    assert suite["settings"]["temperature"] == 0
    assert suite["truncation_rate"]["value"] == 0.0
    assert suite["cost"]["money_per_million_tokens"] > 0
    assert len(suite["items"]) == 12


def test_a_verdict_against_another_is_an_exit_code(capsys, tmp_path):
    other = tmp_path / "wrong.toml"
    other.write_text('[engine]\nkind = "fake"\nscript = "fixed:Answer: 17"\n')
    arguments = [*ECHO, "--count", "60", "--suite", "logic", "--against", str(other), "--json"]
    assert run(arguments) == 0
    (suite,) = json.loads(capsys.readouterr().out)["suites"]
    assert suite["verdict"]["verdict"] == "pass"
    assert suite["verdict"]["effect"] > 0
    assert suite["against"]["metrics"]["correct"]["value"] == 0.0
    same = [*ECHO, "--suite", "logic", "--against", str(other)]
    other.write_text('[engine]\nkind = "fake"\nscript = "fixed:Answer: yes"\n')
    assert run(same) == 3
    assert "logic: inconclusive" in capsys.readouterr().out


def test_what_people_think(capsys, tmp_path):
    home = ["eval", "--ratings", "--home", str(tmp_path)]
    assert run(home) == 0
    assert "nobody has rated" in capsys.readouterr().out
    for number in range(4):
        Ratings(tmp_path / FILE).add(Rating(f"c-{number}", "m", "good" if number else "bad"))
    assert run(home) == 0
    assert "m: 75.0% good" in capsys.readouterr().out
    assert run([*home, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ratings"][0]["good"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "logik"], "did you mean 'logic'"),
        (["--engine", "fake", "--suite", "kl"], "compares an engine with another one"),
        (["--url", "http://127.0.0.1:9", "--engine", "fake"], "--url measures a server as it is"),
        (["--count", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage_is_2(capsys, arguments, said):
    assert run(["eval", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
