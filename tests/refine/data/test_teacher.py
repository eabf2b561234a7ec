"""A teacher's answers: kept when they verify, dropped with a reason when not, in the order of the questions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from temper.engines import kinds
from temper.errors import Invalid
from temper.profile import store
from temper.refine.data.generate import GenerateRecipe, generate
from temper.refine.data.reading import records
from temper.refine.data.teacher import Teaching


def silent(what: str, done: int, total: int) -> None:
    pass


def taught(out: Path, script: str, count: int = 12, **settings) -> dict:
    profile = store.parse(f'[engine]\nkind = "fake"\nscript = "{script}"\n')

    async def work() -> dict:
        engine = kinds.build(profile, context=kinds.Context(Path("/nowhere"), Path("/nowhere")))
        await engine.start()
        try:
            recipe = GenerateRecipe({"logic": 1.0}, count, seed=2, teaching=Teaching(**settings))
            return await generate(recipe, out, silent, engine=engine)
        finally:
            await engine.stop()

    return asyncio.run(work())


def test_right_answers_are_kept_with_their_thinking(tmp_path: Path):
    out = tmp_path / "a.jsonl"
    manifest = taught(out, "pieces:<think>|I think so.|</think>|Answer: yes")
    report, found = manifest["report"], list(records(out))
    assert report["num_kept"] == len(found) < 12
    wrong = report["dropped"]["wrong answer"]
    assert (wrong["count"], wrong["share"]) == (12 - len(found), (12 - len(found)) / 12)
    assert wrong["examples"][0]["where"].startswith("logic-2-")
    assert wrong["examples"][0]["excerpt"] == "Answer: yes"
    for record in found:
        assert record.answer == "yes"
        assert record.response == "<think>\nI think so.\n</think>\n\nAnswer: yes"
        assert record.metadata["source"] == "teacher"
        assert record.metadata["teacher"]
    ids = [int(record.metadata["id"].rpartition("-")[2]) for record in found]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("script", "settings", "reason"),
    [
        ("fixed:Answer: yes", {}, "no thinking"),
        ("pieces:<think>|2 × 2 = 5|</think>|Answer: yes", {}, "a sum that does not hold"),
        ("words", {"max_tokens": 5}, "cut off by the token limit"),
        ("pieces:<think>|and so on", {}, "no answer after the thinking"),
    ],
)
def test_what_is_dropped_has_its_reason(tmp_path: Path, script: str, settings: dict, reason: str):
    with pytest.raises(Invalid, match="nothing is left") as refused:
        taught(tmp_path / "a.jsonl", script, **settings)
    assert reason in str(refused.value)


def test_answers_without_thinking_may_be_wanted(tmp_path: Path):
    taught(tmp_path / "a.jsonl", "fixed:Answer: yes", need_thinking=False)
    assert {record.response for record in records(tmp_path / "a.jsonl")} == {"Answer: yes"}


def test_a_full_queue_is_waited_for(tmp_path: Path):
    report = taught(tmp_path / "a.jsonl", "pieces:<think>|So.|</think>|Answer: yes+error-503:0.01%30")["report"]
    assert report["num_kept"] > 0
    assert set(report["dropped"]) == {"wrong answer"}


def test_settings_that_cannot_be():
    with pytest.raises(Invalid, match="samples is 1 or more"):
        Teaching(samples=0)
