"""`temper recipe` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from temper.cli.app import run
from tests.tiny_models import write_tiny_folder


def test_without_a_name_the_recipes_are_listed(capsys):
    assert run(["recipe"]) == 0
    assert "r1-mini" in capsys.readouterr().out
    assert run(["recipe", "--json"]) == 0
    assert {"r1-mini", "finance"} <= {one["name"] for one in json.loads(capsys.readouterr().out)["recipes"]}


def test_stages_of_a_file(tmp_path: Path, capsys):
    write_tiny_folder(tmp_path / "base", max_position_embeddings=1024)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'about = "mine"\nmodel = "{tmp_path}/base"\n[data]\ntasks = {{ arithmetic = 1 }}\ncount = 9\n'
        'held_out = 3\n[exam]\nsuites = ["arithmetic"]\ncount = 3\nmax_tokens = 4\n'
    )
    words = ["recipe", str(recipe), "--out", str(tmp_path / "out"), "--home", str(tmp_path / "home")]
    assert run([*words, "--stages", "data,exam-base", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "temper.recipe/1"
    assert found["done"] == ["data", "exam-base"]
    assert found["results"]["data"]["num_records"] == 9
    assert run([*words, "--budget", "0s"]) == 3
    assert "left: teach, exam-teach (the budget is spent)" in capsys.readouterr().out
    assert run([*words, "--budget", "soon"]) == 2
    assert "write it like 90min" in capsys.readouterr().err
    assert run([*words, "data.counts=3"]) == 2
    assert "did you mean" in capsys.readouterr().err
