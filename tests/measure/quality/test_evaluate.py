from __future__ import annotations

import json
import math

import pytest

from temper.errors import EngineDied, Invalid, QueueFull, Unsupported
from temper.measure.quality.evaluate import Settings, evaluate
from temper.measure.quality.kinds import find
from temper.types import Sampling
from tests.measure.quality.answering import AnsweringEngine, asked


def right_answers(name: str, seed: int, count: int) -> dict[str, str]:
    return {item.request.messages[-1].content: str(item.reference.answer) for item in find(name).items(seed, count)}


async def test_every_item_is_asked_once_and_scored():
    right = right_answers("arithmetic", 3, 20)
    told: list[tuple[str, int, int]] = []
    engine = AnsweringEngine(lambda request: f"<think>hard</think>Answer: {right[asked(request)]}")
    report = await evaluate(engine, find("arithmetic"), 3, 20, tell=lambda *said: told.append(said))
    assert (report.score, report.count, report.num_failed) == (1.0, 20, 0)
    assert sorted(asked(request) for request in engine.seen) == sorted(right)
    assert told[-1] == ("arithmetic", 20, 20)
    interval = report.primary.interval
    assert interval is not None
    assert interval.method == "Wilson"
    assert interval.low == pytest.approx(0.8389, abs=1e-4)
    assert report.results[0].text.startswith("Answer:")


async def test_a_failure_is_a_wrong_answer_and_is_counted():
    right = right_answers("units", 1, 10)
    broken = next(iter(right))

    def says(request):
        return EngineDied("gone") if asked(request) == broken else right[asked(request)]

    report = await evaluate(AnsweringEngine(says), find("units"), 1, 10)
    assert report.score == pytest.approx(0.9)
    assert report.document()["failures"] == {"engine_died: gone": 1}


async def test_a_refusal_is_waited_out():
    refusals = iter([True, True, False])

    def says(request):
        return QueueFull("later", retry_after_s=0.001) if next(refusals) else "yes"

    report = await evaluate(AnsweringEngine(says), find("logic"), 1, 1)
    assert report.num_failed == 0


async def test_truncation_stands_beside_the_score():
    right = right_answers("arithmetic", 5, 4)
    engine = AnsweringEngine(lambda request: (f"<think>{right[asked(request)]}", "length"))
    report = await evaluate(engine, find("arithmetic"), 5, 4)
    assert (report.score, report.truncation.value) == (0.0, 1.0)  # thinking without an end is no answer


async def test_settings_override_the_items_but_leave_their_seeds():
    engine = AnsweringEngine(lambda request: "no")
    settings = Settings(Sampling(temperature=0.5), max_tokens=7, concurrency=2)
    report = await evaluate(engine, find("logic"), 8, 5, settings=settings)
    own = {item.request.sampling.seed for item in find("logic").items(8, 5)}
    assert {request.sampling.seed for request in engine.seen} == own
    assert {(request.sampling.temperature, request.limits.max_tokens) for request in engine.seen} == {(0.5, 7)}
    assert report.settings == {"temperature": 0.5, "max_tokens": 7, "concurrency": 2}


async def test_what_no_item_can_be_asked_is_said_at_once():
    engine = AnsweringEngine(lambda request: Unsupported("no chat here"))
    with pytest.raises(Unsupported, match="no chat here"):
        await evaluate(engine, find("logic"), 1, 5)
    assert len(engine.seen) == 1
    refusals = iter([False, True])
    late = AnsweringEngine(lambda request: Unsupported("not this one") if next(refusals, False) else "no")
    with pytest.raises(Unsupported, match="not this one"):
        await evaluate(late, find("logic"), 1, 30, settings=Settings(concurrency=1))
    assert len(late.seen) < 30  # the others were called off
    with pytest.raises(Invalid, match="at least one item"):
        await evaluate(engine, find("logic"), 1, 0)


async def test_the_document_is_plain_data():
    engine = AnsweringEngine(lambda request: "Answer: 1")
    report = await evaluate(engine, find("sequences"), 2, 6)
    document = json.loads(json.dumps(report.document(answers=True), allow_nan=False))
    assert document["metrics"]["correct"]["num_items"] == 6
    assert len(document["items"]) == 6
    assert math.isclose(document["metrics"]["correct"]["value"], report.score or 0.0)
