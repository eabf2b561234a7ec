"""A distillation from a recipe to a checkpoint: smaller, better than its beginning, and resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from temper import api
from temper.errors import Invalid, MalformedFile
from temper.models.checkpoint import open_checkpoint
from tests.tiny_models import write_tiny_folder

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "student": {"layers": 2, "at_once": 1, "examples": 4},
    "loss": {"top_k": 8},
    "optimizer": {"learning_rate": 3e-3},
    "schedule": {"steps": 8},
    "batch": {"batch_size": 4, "micro_batch": 2, "context_length": 64},
    "evaluation": {"every": 4},
    "saving": {"every": 1},
    "compute": {"threads": 1, "precision": "fp32"},
}


@pytest.fixture
def place(tmp_path: Path) -> api.Place:
    write_tiny_folder(tmp_path / "teacher", tie_word_embeddings=True)
    lines = []
    for a in range(6):
        for b in range(5):
            turns = [{"role": "user", "content": f"{a}+{b}"}, {"role": "assistant", "content": f"{a + b} and the rest"}]
            lines.append(json.dumps({"messages": turns}))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    return api.Place(home=tmp_path / "home", cache_dir=tmp_path / "cache")


def run(place: api.Place, *changes: str, watch=lambda line: None) -> dict[str, Any]:
    folder = place.home.parent
    data = {"train": [str(folder / "train.jsonl")], "validation_share": 0.2}
    recipe = {**SETTINGS, "teacher": str(folder / "teacher"), "out": str(folder / "run"), "data": data}
    return api.distill(recipe, changes, watch=watch, where=place)


def test_a_student_learns_and_opens(place: api.Place):
    found = run(place)
    losses = [line["loss"] for line in found["history"]]
    assert losses[-1] < losses[0]
    assert set(found["history"][0]["parts"]) == {"soft", "hard", "hidden"}
    assert len(found["cut"]["kept_layers"]) == 2
    measured = found["step"]["measured"]
    assert measured["held_out_clean"] > 0 < measured["held_out_adversarial"]
    opened = open_checkpoint(found["checkpoints"]["last"], place.cache_dir)
    assert opened.config.num_layers == 2
    assert [step.recipe for step in opened.manifest.steps] == ["distill"]


def test_a_killed_run_ends_in_the_same_bits_and_asks_the_teacher_nothing_again(place: api.Place, monkeypatch):
    whole = run(place)
    folder = place.home.parent / "run"
    kept = {path.name: path.read_bytes() for path in (folder / "last").iterdir() if path.suffix == ".safetensors"}
    asked = folder / "predictions"
    names = sorted(path.name for path in asked.iterdir())
    folder.rename(folder.with_name("first"))

    class Killed(Exception):
        pass

    def stop(line):
        if line["step"] == 5:
            raise Killed

    with pytest.raises(Killed):
        run(place, watch=stop)
    times = {path.name: path.stat().st_mtime_ns for path in asked.iterdir()}
    again = run(place)
    assert {path.name: path.stat().st_mtime_ns for path in asked.iterdir()} == times
    assert sorted(times) == names
    assert [line["loss"] for line in again["history"]] == [line["loss"] for line in whole["history"]]
    for name, raw in kept.items():
        assert (folder / "last" / name).read_bytes() == raw


def test_damaged_predictions_are_named(place: api.Place):
    with pytest.raises(RuntimeError, match="enough"):
        run(place, watch=_enough)
    [path] = (place.home.parent / "run" / "predictions").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MalformedFile, match="teacher's predictions in"):
        run(place)


def _enough(line):
    raise RuntimeError("enough")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("loss.depths=[0.4,1.0]", "depths lie between 0"),
        ("loss.depths=[]", "gamma weighs hidden states at depths"),
        ("student.layers=4", "student.layers is 4 and the teacher has 3"),
        ("student.layer=2", "unknown field 'student.layer'; did you mean 'student.layers'"),
        ("adversarial.share=1.5", "adversarial.share must be"),
        ("loss.temperature=0", "loss.temperature must be"),
    ],
)
def test_what_cannot_be_is_refused(place: api.Place, change: str, says: str):
    with pytest.raises(Invalid, match=says):
        run(place, change)


def test_self_distillation_of_a_copy_needs_no_hidden_states(place: api.Place):
    found = run(place, "student.layers=3", "gamma=0", "schedule.steps=2")
    assert found["cut"]["kept_layers"] == (0, 1, 2)
    assert set(found["history"][0]["parts"]) == {"soft", "hard"}
    assert found["history"][0]["parts"]["soft"] < 0.05
