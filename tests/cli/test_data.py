"""`temper data` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper.cli.app import run
from tests.tiny_models import write_tiny_folder


def test_generate_split_and_leaks(tmp_path: Path, capsys):
    source, train, test = (str(tmp_path / f"{name}.jsonl") for name in ("all", "train", "test"))
    assert run(["data", "generate", source, "--task", "arithmetic=2,logic", "--count", "80", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "80 records of 80 questions" in out
    assert "arithmetic: level" in out
    assert run(["data", "split", source, train, test, "--share", "0.25", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "temper.data.split/1"
    assert found["machine"]["cpu"]
    assert found["report"]["num_train"] + found["report"]["num_test"] == 80
    assert run(["data", "leaks", train, test]) == 0
    assert "0 leaks" in capsys.readouterr().out
    assert run(["data", "leaks", source, test, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["by_kind"] == {"exact": found["report"]["num_test"]}


def test_a_teacher_by_its_profile(tmp_path: Path, capsys):
    profile = tmp_path / "teacher.toml"
    profile.write_text('[engine]\nkind = "fake"\nscript = "pieces:<think>|So.|</think>|Answer: yes"\n')
    words = ["data", "generate", str(tmp_path / "a.jsonl"), "--task", "logic", "--count", "8", "--levels", "2,3"]
    assert run([*words, "--teacher", str(profile), "--home", str(tmp_path / "home")]) == 0
    out = capsys.readouterr().out
    assert "records of 8 questions" in out
    assert "wrong answer" in out


def test_clean_says_what_went_and_why(tmp_path: Path, capsys):
    pytest.importorskip("rensa")
    pytest.importorskip("py3langid")
    model, source = write_tiny_folder(tmp_path / "model"), tmp_path / "raw.jsonl"
    turns = {"instruction": "Write to jane@example.com and tell her the news", "output": "the and on an in the " * 20}
    source.write_text(f"{json.dumps(turns)}\n" * 2 + json.dumps({"text": "short"}) + "\n")
    words = ["data", "clean", str(source), str(tmp_path / "out.jsonl"), "-m", str(model), "--min-tokens", "30"]
    assert run([*words, "--home", str(tmp_path / "home")]) == 0
    out = capsys.readouterr().out
    for part in ("1 of 3 records (33.3%)", "exact duplicate", "raw.jsonl:3: ", "too short", "pii: email 2"):
        assert part in out


def test_augment_says_what_it_made(tmp_path: Path, capsys):
    source, out = str(tmp_path / "all.jsonl"), str(tmp_path / "more.jsonl")
    assert run(["data", "generate", source, "--task", "words", "--count", "12", "--seed", "3"]) == 0
    table = tmp_path / "mine.tsv"
    table.write_text("train\texpress\nchild/pupil\n")
    capsys.readouterr()
    words = [
        "data",
        "augment",
        source,
        out,
        "--operations",
        "numbers,synonyms",
        "--synonyms",
        str(table),
        "--seed",
        "5",
    ]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "made: numbers 6" in said
    assert "records of 12" in said
    profile = tmp_path / "engine.toml"
    profile.write_text('[engine]\nkind = "fake"\nscript = "echo"\n')
    words = ["data", "augment", source, str(tmp_path / "p.jsonl"), "--operations", "paraphrase", "--json"]
    assert run([*words, "--engine", str(profile), "--home", str(tmp_path / "home")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "temper.data.augment/1"
    assert found["manifest"]["report"]["num_read"] == 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "{}/a.csv"], "an output is .jsonl or .parquet"),
        (["generate", "{}/a.jsonl", "--task", "logik"], "did you mean 'logic'"),
        (["generate", "{}/a.jsonl", "--levels", "easy"], "levels are written 1-3 or 1,4"),
        (["generate", "{}/a.jsonl", "--levels", "0-2"], "levels go from 1 to 5"),
        (["generate", "{}/a.jsonl", "--count", "0"], "0 is not in the range"),
        (["generate", "{}/a.jsonl", "--task", "units", "--levels", "3", "--count", "500"], "were asked for"),
        (["augment", "{}/none.jsonl", "{}/b.jsonl"], "there is no data file"),
        (["augment", "{}/none.jsonl", "{}/b.jsonl", "--operations", "magic"], "operations are of synonyms"),
        (["augment", "{}/none.jsonl", "{}/b.jsonl", "--operations", "paraphrase"], "a paraphrase needs a model"),
        (["clean", "{}/none.jsonl", "{}/b.jsonl", "--min-tokens", "9", "--max-tokens", "3"], "lengths go from"),
        (["split", "{}/none.jsonl", "{}/b.jsonl", "{}/c.jsonl"], "there is no data file"),
        (["leaks", "{}/none.jsonl", "{}/b.jsonl"], "there is no data file"),
    ],
)
def test_wrong_usage_is_2(tmp_path: Path, capsys, words, said):
    assert run(["data", *(word.format(tmp_path) for word in words)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
