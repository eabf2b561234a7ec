"""An end-to-end recipe on a tiny random model: every stage but the canary, resumed, and refused where it cannot be."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from temper import api
from temper.api.teaching import read_course
from temper.errors import Invalid, NotFound
from temper.models.checkpoint import open_checkpoint
from temper.refine.courses import course_names, course_text
from tests.tiny_models import write_tiny_folder

TRAINING = {
    "schedule": {"steps": 2},
    "batch": {"batch_size": 2, "micro_batch": 2, "context_length": 400},
    "evaluation": {"every": 2, "examples": 2},
    "compute": {"threads": 1, "precision": "fp32"},
    "validation_share": 0.2,
}
TINY: dict[str, Any] = {
    "about": "a tiny one",
    "data": {"tasks": {"arithmetic": 1}, "count": 24, "held_out": 4},
    "exam": {"suites": ["arithmetic", "arithmetic_adversarial"], "count": 4, "max_tokens": 8},
    "teach": TRAINING,
    "distill": {**TRAINING, "student": {"layers": 2, "examples": 2}, "loss": {"top_k": 4}},
    "quantize": {"method": "rtn", "bits": 8, "calibration_tokens": 512},
    "cost": {"rounds": 1, "count": 2},
    "compare": {"units": 2, "requests": 2, "items": 2},
}


@pytest.fixture
def where(tmp_path: Path) -> api.Place:
    write_tiny_folder(tmp_path / "base", tie_word_embeddings=True, max_position_embeddings=2048)
    return api.Place(home=tmp_path / "home", cache_dir=tmp_path / "cache")


def run(where: api.Place, *changes: str, **options: Any) -> dict[str, Any]:
    recipe = {**TINY, "model": str(where.home.parent / "base")}
    return api.course(recipe, where.home.parent / "out", changes, where=where, **options)


def test_all_stages_leave_what_they_found_and_a_second_call_does_nothing(where: api.Place):
    first = run(where, stages=("data", "teach", "exam-base"))
    assert first["done"] == ["data", "exam-base", "teach"]
    assert first["table"] is None
    found = run(where)
    assert found["left"] == []
    assert found["done"] == ["data", "exam-base", "teach", "exam-teach", "distill", "exam-distill", "quantize",
                             "exam-quantize", "cost", "compare"]  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    rows = found["table"]["rows"]
    assert [(row["suite"], row["model"]) for row in rows][:4] == [
        ("arithmetic", model) for model in ("base", "teach", "distill", "quantize")
    ]
    assert all(row["num_items"] == 4 for row in rows)
    checkpoint = where.home.parent / "out" / found["results"]["quantize"]["checkpoint"]
    opened = open_checkpoint(str(checkpoint), where.cache_dir)
    assert opened.config.num_layers == 2
    assert [step.recipe for step in opened.manifest.steps] == ["train", "distill", "quantize"]
    assert opened.template.opens_thinking
    assert found["results"]["compare"]["verdict"] in ("pass", "fail", "inconclusive")
    asked = (where.home.parent / "out" / "compare" / "questions.jsonl").read_text().splitlines()
    assert len({json.loads(line)["prompt"] for line in asked}) == 8 + 2 * 2
    assert found["results"]["cost"]["teach"]["cpu_s"] > 0
    again = run(where, budget_s=0)
    assert (again["seconds"], again["results"]) == (found["seconds"], found["results"])


def test_a_run_that_ended_before_its_manifest_is_taken_up_and_another_recipe_is_not(where: api.Place):
    run(where, stages=("data", "teach"))
    manifest = where.home.parent / "out" / "teach" / "stage.json"
    kept = json.loads(manifest.read_text())["result"]
    manifest.unlink()
    with pytest.raises(Invalid, match=r"was trained otherwise: schedule.steps differ"):
        run(where, "teach.schedule.steps=3", stages=("teach",))
    assert run(where, stages=("teach",))["results"]["teach"] == kept


@pytest.mark.parametrize("name", ["finance", "medicine", "manufacturing", "customer-service", "code"])
def test_each_trade_s_recipe_runs_to_its_exam(where: api.Place, name: str):
    small = (
        "data.count=8", "data.held_out=2", "exam.count=2", "exam.max_tokens=4", "teach.schedule.steps=1",
        "teach.lora.rank=2", "teach.batch.batch_size=1", "teach.batch.micro_batch=1", "teach.batch.context_length=2000",
        "teach.validation_share=0.3", "teach.compute.threads=1", f"model={where.home.parent / 'base'}",
    )  # fmt: skip
    found = api.course(name, where.home.parent / name, small, where=where)
    assert (found["done"], found["left"]) == (["data", "exam-base", "teach", "exam-teach"], [])
    teach = found["results"]["teach"]
    assert teach["adapter"] != teach["checkpoint"]
    merged = open_checkpoint(str(where.home.parent / name / teach["checkpoint"]), where.cache_dir)
    assert [step.recipe for step in merged.manifest.steps] == ["merge"]
    assert merged.template.opens_thinking
    assert [row["model"] for row in found["table"]["rows"]] == ["base", "teach"]
    assert found["table"]["kept"] == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("exam.count=5", "exam.count is 5 and data.held_out is 4"),
        ("teach.schedule.step=1", "did you mean"),
        ("quantize.bits=5", "quantize.bits must be"),
        ("data.tasks={}", "data.tasks"),
    ],
)
def test_what_cannot_be_is_refused(where: api.Place, change: str, says: str):
    with pytest.raises(Invalid, match=says):
        run(where, change)


def test_a_comparison_needs_something_to_compare():
    recipe = {name: TINY[name] for name in ("about", "data", "exam", "teach", "compare")}
    with pytest.raises(Invalid, match="add distill or quantize"):
        read_course(recipe)


def test_the_recipes_that_come_with_temper_can_be_read():
    assert "r1-mini" in course_names()
    for name, about in api.courses().items():
        assert read_course(name).about == about
        assert course_text(name).startswith("# ")
        assert tomllib.loads(course_text(name))
    with pytest.raises(NotFound, match="no recipe is called 'r1-mine'"):
        read_course("r1-mine")
