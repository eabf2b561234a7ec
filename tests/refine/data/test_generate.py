"""Generated data: verified, repeatable, without what is held out, and the same after a kill."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from temper.asking import Sample
from temper.errors import Invalid, NotFound
from temper.measure.quality import equations
from temper.measure.quality.answers import final_text
from temper.measure.quality.check import Check
from temper.measure.quality.generators.question import key
from temper.measure.quality.kinds import find
from temper.refine.data.generate import GenerateRecipe, generate, task_weights
from temper.refine.data.questions import expected_of, retold
from temper.refine.data.reading import records

TASKS = {"arithmetic": 2.0, "words": 1.0, "logic": 1.0}


def silent(what: str, done: int, total: int) -> None:
    pass


def made(out: Path, recipe: GenerateRecipe, **more) -> dict:
    return asyncio.run(generate(recipe, out, silent, **more))


def test_every_record_verifies_from_the_file_alone(tmp_path: Path):
    out = tmp_path / "a.jsonl"
    recipe = GenerateRecipe({**TASKS, "words_zh": 1.0, "sequences": 1.0, "units": 1.0}, 300, (1, 2, 3, 4, 5), seed=3)
    manifest = made(out, recipe)
    check, found = Check(), list(records(out))
    assert len(found) == manifest["num_records"] == 300
    assert len({record.prompt for record in found}) == 300
    for record in found:
        thinking = record.response.partition("</think>")[0]
        assert thinking.startswith("<think>\n")
        assert equations.check(thinking.splitlines()).false == ()
        expected = expected_of(record)
        assert expected is not None
        assert check.right(expected, final_text(Sample(text=record.response)))
        assert not check.right(expected, "Answer: nothing")
        question = retold(record)
        assert question is not None
        assert record.prompt.startswith(question.text)
        assert record.metadata["level"] in (1, 2, 3, 4, 5)
    assert {record.metadata["level"] for record in found} == {1, 2, 3, 4, 5}
    assert sum(n for levels in manifest["report"]["by_task_and_level"].values() for n in levels.values()) == 300


def test_a_seed_decides_the_bytes_and_more_only_adds(tmp_path: Path):
    one, two, more = (tmp_path / f"{name}.jsonl" for name in ("one", "two", "more"))
    made(one, GenerateRecipe(TASKS, 40, seed=1))
    made(two, GenerateRecipe(TASKS, 40, seed=1))
    made(more, GenerateRecipe(TASKS, 60, seed=1))
    assert one.read_bytes() == two.read_bytes()
    assert more.read_bytes().startswith(one.read_bytes())
    made(tmp_path / "other.jsonl", GenerateRecipe(TASKS, 40, seed=2))
    assert (tmp_path / "other.jsonl").read_bytes() != one.read_bytes()


def test_what_an_evaluation_asks_is_left_out(tmp_path: Path):
    out = tmp_path / "a.jsonl"
    made(out, GenerateRecipe(TASKS, 600, seed=1, held_out_seed=4, held_out_count=100))
    exam = {key(item.reference) for name in TASKS for item in find(name).items(4, 100)}
    asked = {key(retold(record)) for record in records(out)}
    assert not exam & asked


def test_what_stands_in_another_file_is_left_out(tmp_path: Path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    made(first, GenerateRecipe({"arithmetic": 1.0}, 100, seed=1))
    made(second, GenerateRecipe({"arithmetic": 1.0}, 100, seed=1), keep_out=first)
    assert not {key(retold(r)) for r in records(first)} & {key(retold(r)) for r in records(second)}


def test_levels_choose_the_templates(tmp_path: Path):
    made(tmp_path / "a.jsonl", GenerateRecipe({"arithmetic": 1.0}, 60, (5,), seed=1))
    assert {record.metadata["level"] for record in records(tmp_path / "a.jsonl")} == {5}


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"tasks": {}}, Invalid, "one task or more"),
        ({"tasks": {"poetry": 1.0}}, NotFound, "there is no task 'poetry'"),
        ({"tasks": {"logic": 0.0}}, Invalid, "a weight is above 0"),
        ({"tasks": TASKS, "levels": (0,)}, Invalid, "levels go from 1 to 5"),
        ({"tasks": TASKS, "levels": ()}, Invalid, "levels go from 1 to 5"),
        ({"tasks": TASKS, "count": 0}, Invalid, "1 question or more"),
        ({"tasks": {"units": 1.0}, "levels": (5,)}, Invalid, "no more than 0 different questions of level 5"),
        ({"tasks": {"units": 1.0}, "levels": (3,), "count": 900}, Invalid, "different questions of level 3"),
        ({"tasks": TASKS, "held_out_seed": 1, "held_out_count": 0}, Invalid, "1 item or more"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, settings, error, said):
    with pytest.raises(error, match=said):
        made(tmp_path / "a.jsonl", GenerateRecipe(**settings))


def test_task_weights():
    assert task_weights(["logic", "words=2.5"]) == {"logic": 1.0, "words": 2.5}
    for bad in (["logic=much"], ["logic", "logic"], ["lógic"]):
        with pytest.raises(Invalid):
            task_weights(bad)


def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path: Path):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    made(whole, GenerateRecipe(TASKS, 4000, seed=5))
    code = (
        "import sys; from pathlib import Path; import temper.refine.data.writing as w; w.NOTE_INTERVAL_S = 0.02\n"
        "import asyncio; from temper.refine.data.generate import GenerateRecipe, generate\n"
        f"recipe = GenerateRecipe({TASKS!r}, 4000, seed=5)\n"
        "asyncio.run(generate(recipe, Path(sys.argv[1]), lambda *told: None))\n"
    )
    note, positions = tmp_path / ".broken.jsonl.note", []
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code, str(broken)])
        before = note.stat().st_mtime_ns if note.exists() else 0
        while process.poll() is None and (not note.exists() or note.stat().st_mtime_ns == before):
            time.sleep(0.002)
        process.kill()
        process.wait()
        if broken.exists():
            break
        positions.append(json.loads(note.read_text())["position"])
    if not broken.exists():
        made(broken, GenerateRecipe(TASKS, 4000, seed=5))
    assert broken.read_bytes() == whole.read_bytes()
    assert positions == sorted(positions)
    assert not note.exists()


def test_a_record_that_lies_is_found_out(tmp_path: Path):
    made(tmp_path / "a.jsonl", GenerateRecipe(TASKS, 5, seed=1))
    record = next(records(tmp_path / "a.jsonl"))
    for operands in ({}, {"a": 1}, {**record.metadata["operands"], "more": 1}):
        with pytest.raises(Invalid, match="must be those that it draws"):
            retold(record.with_metadata(operands=operands))
    with pytest.raises(Invalid, match=r"metadata\.verifier\.kind is one of"):
        expected_of(record.with_metadata(verifier={"kind": "guess"}))
    assert retold(record.with_metadata(template="poetry.sonnet")) is None
