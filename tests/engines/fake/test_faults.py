"""The faults by name, their language, and that they strike the same requests every time."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from temper.engines.fake import FAULTS, SCRIPTS, FakeEngine
from temper.engines.fake.faults import find
from temper.errors import (
    DeadlineExceeded,
    Draining,
    EngineDied,
    EngineFailure,
    Invalid,
    OutOfMemory,
    ProfileError,
    QueueFull,
    TemperError,
)
from temper.profile import schema
from temper.types import Delta, Done, Event, Failed, Limits, Request

DOCS = Path(__file__).parent.parent.parent.parent / "docs" / "fake.md"


async def started(script: str, **fields: object) -> FakeEngine:
    engine = FakeEngine(schema.FakeEngine.model_validate({"script": script, **fields}))
    await engine.start()
    return engine


async def hear(engine: FakeEngine, *, tokens: int = 10, **fields: object) -> list[Event]:
    return [e async for e in engine.generate(Request("t", prompt="x", limits=Limits(tokens), **fields))]


async def play(script: str, **fields: object) -> list[Event]:
    return await hear(await started(script), **fields)


def said(events: list[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta))


def test_the_page_names_all_there_is():
    page = DOCS.read_text("utf-8")
    for name in (*SCRIPTS, *FAULTS):
        assert re.search(rf"`{name}[`:]", page), name


async def test_a_stall_ends_when_it_is_told_to():
    begin = time.monotonic()
    events = await play("count+stall@4:200", tokens=8)
    assert isinstance(events[-1], Done)
    assert said(events) == "1 2 3 4 5 6 7 8"
    assert time.monotonic() - begin >= 0.2


async def test_a_stall_never_ends_by_itself():
    events = await play("stall@5", deadline_s=0.2)
    assert said(events) == "1 2 3 4 5"
    assert isinstance(events[-1].error, DeadlineExceeded)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(500, EngineFailure), (502, EngineDied), (504, DeadlineExceeded), (507, OutOfMemory)],
)
async def test_errors_of_a_taken_request(code: int, kind: type[TemperError]):
    events = await play(f"error-{code}")
    assert type(events[-1].error) is kind
    assert said(events) == ""


@pytest.mark.parametrize(("code", "kind"), [(400, Invalid), (429, QueueFull), (503, Draining)])
async def test_refusals(code: int, kind: type[TemperError]):
    with pytest.raises(kind) as caught:
        await play(f"error-{code}:7")
    assert caught.value.retry_after_s == (None if code == 400 else 7)


async def test_faults_add_up():
    events = await play("words+slow-start:30+slow:10+cut@2+wrong-usage")
    assert isinstance(events[-1], Failed)
    assert len([e for e in events if isinstance(e, Delta)]) == 2


async def test_wrong_counts_and_empty_answers():
    assert (await play("count+wrong-usage:3"))[-1].usage.completion_tokens == 30
    events = await play("empty")
    assert said(events) == ""
    assert isinstance(events[-1], Done)


async def test_garbage_is_text_all_the_same():
    text = said(await play("garbage@2", tokens=40))
    assert text.startswith("1 2")
    assert "�" in text
    text.encode()


async def test_a_stream_may_vanish():
    events = await play("vanish@2")
    assert said(events) == "1 2"
    assert not isinstance(events[-1], Done | Failed)


async def test_memory_grows():
    engine = await started("count+leak:5000")
    await hear(engine)
    await hear(engine)
    assert engine.stats().details["leaked_bytes"] == 10_000


async def test_percentages_repeat_under_a_seed():
    async def broken(seed: int) -> list[int]:
        engine = await started("count:2+error-500%30", seed=seed)
        ends = [(await hear(engine))[-1] for _ in range(100)]
        return [number for number, end in enumerate(ends) if isinstance(end, Failed)]

    first = await broken(1)
    assert first == await broken(1) != await broken(2)
    assert 15 <= len(first) <= 45


@pytest.mark.parametrize("drawn", ["constant(4)", "uniform(2,6)", "exponential(4)", "lognormal(4,0.3)", "pareto(2,2)"])
async def test_latency_has_a_distribution(drawn: str):
    begin = time.monotonic()
    assert isinstance((await play(f"count+ttft:{drawn}+itl:{drawn}", tokens=12))[-1], Done)
    assert 0.008 <= time.monotonic() - begin < 5


async def test_a_plus_in_a_text_is_a_plus():
    assert said(await play("fixed:1+1=2")) == "1+1=2"
    assert said(await play("fixed:a+b+cut@1", tokens=1)) == "a+b"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("stal@3", "no script 'stal'"),
        ("count+stall@x", "is written NAME"),
        ("count+slow:fast", "is a number, but is 'fast'"),
        ("itl:normal(3)", "takes one of constant"),
        ("itl:uniform(3)", "takes 2 numbers"),
        ("cut%120", "100 is the most"),
    ],
)
def test_what_is_wrong_is_said_at_once(script: str, words: str):
    with pytest.raises(ProfileError, match=re.escape(words)):
        find(script)


async def test_a_crash_is_everybodys_and_passes():
    engine = await started("count+crash@5", itl_ms=5)
    both = await asyncio.gather(hear(engine), hear(engine))
    assert all(isinstance(events[-1].error, EngineDied) for events in both)
    with pytest.raises(Draining):
        await hear(engine)
    await asyncio.sleep(0.6)
    assert engine.health().ready
