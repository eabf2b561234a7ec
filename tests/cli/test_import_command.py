"""`temper import-command` as a user types it."""

from __future__ import annotations

import json

import pytest

from temper.cli.app import run
from temper.profile import command_line, store

LINE = "HF_TOKEN=hf_abc vllm serve m --max-num-seqs 64 --foo bar --port 8000"


def test_the_profile_is_printed_and_the_rest_said(capsys):
    assert run(["import-command", LINE]) == 0
    captured = capsys.readouterr()
    section = store.parse(captured.out).engine
    assert section.flags.model_dump() == {"max_num_seqs": 64}
    assert command_line.render(section) == LINE.split()[1:]
    assert "1 flags understood: max_num_seqs" in captured.err
    assert "kept as they stand: --foo bar" in captured.err
    assert "HF_TOKEN was left out" in captured.err
    assert "hf_abc" not in captured.out + captured.err


def test_words_behind_dashes_are_taken_as_they_are(capsys):
    assert run(["import-command", "--", "llama-server", "-m", "a b.gguf", "-np", "4"]) == 0
    section = store.parse(capsys.readouterr().out).engine
    assert (section.model, section.flags.parallel) == ("a b.gguf", 4)


def test_the_file_is_a_profile(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    assert run(["import-command", LINE, "--output", str(file)]) == 0
    assert capsys.readouterr().out == ""
    assert store.load(file).engine.server == "vllm"
    assert run(["profile", "show", str(file), "--set", "max_num_seqs=128"]) == 0
    assert "max_num_seqs = 128" in capsys.readouterr().out


def test_json_tells_what_can_be_tuned(capsys):
    assert run(["import-command", "--json", LINE]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "temper.import-command/1"
    assert document["command"] == LINE.split()[1:]
    assert document["kept"] == ["--foo", "bar"]
    tunable = {entry["field"]: entry for entry in document["tunable"]}
    assert tunable["engine.flags.max_num_seqs"] == {
        "field": "engine.flags.max_num_seqs", "value": 64, "low": 1, "high": 1024, "scale": "log", "restart": True,
    }  # fmt: skip
    assert tunable["engine.flags.block_size"]["value"] is None


@pytest.mark.parametrize("line", ["vllm chat", "docker run x", "vllm serve 'm", "vllm serve m | cat"])
def test_what_cannot_be_imported_is_wrong_usage(line, capsys):
    assert run(["import-command", line]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
