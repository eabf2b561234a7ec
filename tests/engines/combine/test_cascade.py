"""Cascade: what will not do is not shown, what will do is not paid for twice."""

from __future__ import annotations

import json

import pytest

from temper.types import Delta, Finished, Message, Request
from tests.engines.combine.trees import cascade, done, hear, said


@pytest.mark.parametrize(
    ("cheap", "fields", "why"),
    [
        ("fixed:I'm sorry, but I can't help with that.", {}, "refusal"),
        ("fixed:I cannot say.", {}, "refusal"),
        ("fixed:抱歉，我不知道。", {}, "refusal"),
        ("count", {"truncated": True}, "truncated"),
        ("empty", {}, "empty"),
        ("words", {"min_mean_logprob": -0.01}, "mean logprob -0."),
        ("cut", {}, "engine_failure"),
        ("error-429", {}, "queue_full"),
    ],
)
async def test_escalation(cheap: str, fields: dict, why: str):
    engine = cascade(cheap, "fixed:the better answer", **{"truncated": False} | fields)
    await engine.start()
    events = await hear(engine, tokens=20)
    assert said(events) == "the better answer"
    made = done(events).made_by
    assert made.branch == "fake-1"
    (reason,) = made.escalated
    assert reason.startswith(f"fake-0: {why}")


async def test_a_good_answer_is_kept():
    engine = cascade("fixed:good enough", "fixed:dear", min_mean_logprob=-5.0)
    await engine.start()
    events = await hear(engine)
    assert said(events) == "good enough"
    assert done(events).made_by.escalated == ()
    assert all(event.logprobs is None for event in events if isinstance(event, Delta)), "nobody asked for them"
    details = engine.stats().details
    assert details["fake-0"] == {"kept_total": 1, "escalated_total": 0}
    assert details["fake-1"] == {"kept_total": 0, "escalated_total": 0}


@pytest.mark.parametrize(("text", "valid"), [('{"a": [1]}', True), ("{a: 1}", False), ("[" * 100_000, False)])
def test_json(text: str, valid: bool):
    engine = cascade("echo", "echo")
    request = Request("t", messages=(Message("user", "x"),), response_format={"type": "json_object"})
    fault = engine._fault(request, [Delta(0, text), Finished(0, "stop")])
    assert fault == (None if valid else "invalid JSON")
    assert not valid or json.loads(text)


async def test_steps_are_tried_in_order():
    engine = cascade("empty", "fixed:Sorry, no.", "fixed:third")
    await engine.start()
    events = await hear(engine)
    assert said(events) == "third"
    assert done(events).made_by.escalated == ("fake-0: empty", "fake-1: refusal")
