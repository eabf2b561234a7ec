"""`temper refine distill` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from temper.cli.app import run
from tests.tiny_models import write_tiny_folder


def test_a_student_of_a_recipe(tmp_path: Path, capsys):
    write_tiny_folder(tmp_path / "teacher")
    turns = [{"role": "user", "content": "the other one"}, {"role": "assistant", "content": "and the one there"}]
    lines = [json.dumps({"messages": turns, "id": number}) for number in range(8)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "held-out.jsonl").write_text(lines[0])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'teacher = "{tmp_path}/teacher"\nout = "run"\n[data]\ntrain = ["train.jsonl"]\n'
        'validation = ["held-out.jsonl"]\n'
        "[student]\nlayers = 1\n[loss]\ntop_k = 4\n"
    )
    small = ["schedule.steps=2", "batch_size=2", "micro_batch=1", "context_length=64", "threads=1"]
    words = ["refine", "distill", str(recipe), *small, "--home", str(tmp_path / "home")]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert "kept 1 layers, 160 neurons in each MLP" in out
    assert "held out adversarial: " in out
    assert "2 steps: loss" in out
    assert run([*words, "--json"]) == 2
    assert "is finished, and a run is not trained twice" in capsys.readouterr().err
