"""Manners of the fake engine that the conformance suite does not ask for: the line, pacing, crashes."""

from __future__ import annotations

import asyncio
import time

import pytest

from temper.engines.fake import FakeEngine
from temper.errors import Draining, QueueFull
from temper.profile import schema
from temper.types import Accepted, Delta, Done, Event, Failed, Limits, Request


async def started(script: str = "count", **fields: object) -> FakeEngine:
    engine = FakeEngine(schema.FakeEngine.model_validate({"script": script, **fields}))
    await engine.start()
    return engine


async def collect(engine: FakeEngine, max_tokens: int = 5, priority: int = 0, prompt: str = "x") -> list[Event]:
    request = Request("t", prompt=prompt, limits=Limits(max_tokens), priority=priority)
    return [event async for event in engine.generate(request)]


async def test_pacing():
    engine = await started(ttft_ms=60, itl_ms=20)
    start, times = time.monotonic(), []
    async for event in engine.generate(Request("t", prompt="x", limits=Limits(4))):
        if isinstance(event, Delta):
            times.append(time.monotonic() - start)
    assert times[0] >= 0.06
    assert times[-1] >= 0.12


async def test_the_line_is_served_by_priority_and_has_an_end():
    engine = await started(max_sequences=1, itl_ms=10, admission={"max_waiting": 3})
    first = asyncio.create_task(collect(engine, 10))
    await asyncio.sleep(0.02)
    order: list[int] = []

    async def wait(priority: int) -> None:
        await collect(engine, 1, priority)
        order.append(priority)

    waiting = [asyncio.create_task(wait(priority)) for priority in (5, -1, 2)]
    await asyncio.sleep(0.02)
    assert (engine.stats().num_running, engine.stats().num_waiting) == (1, 3)
    with pytest.raises(QueueFull):
        await collect(engine)
    await asyncio.gather(first, *waiting)
    assert order == [-1, 2, 5]
    assert engine.stats().num_running == engine.stats().num_waiting == 0


async def test_leaving_the_line_gives_the_place_up():
    engine = await started(max_sequences=1, itl_ms=10)
    first = asyncio.create_task(collect(engine, 10))
    await asyncio.sleep(0.02)
    leaver = asyncio.create_task(collect(engine, 1))
    stayer = asyncio.create_task(collect(engine, 1))
    await asyncio.sleep(0.02)
    leaver.cancel()
    await asyncio.sleep(0.02)
    assert engine.stats().num_waiting == 1
    assert isinstance((await stayer)[-1], Done)
    assert isinstance((await first)[-1], Done)
    assert engine.stats().details["cancelled_total"] == 1


async def test_the_place_in_line_is_told():
    engine = await started(max_sequences=1, itl_ms=10)
    running = asyncio.create_task(collect(engine, 10))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(collect(engine, 1))
    await asyncio.sleep(0.01)
    third = asyncio.create_task(collect(engine, 1))
    await running
    assert (await second)[0] == Accepted(0)
    assert (await third)[0] == Accepted(1)


async def test_a_crash_takes_everyone_along_and_passes():
    engine = await started("crash:3", itl_ms=5)
    ends = await asyncio.gather(*(collect(engine, 50) for _ in range(4)))
    assert all(isinstance(events[-1], Failed) for events in ends)
    assert not engine.health().alive
    assert not engine.health().ready
    with pytest.raises(Draining):
        await collect(engine)
    await asyncio.sleep(0.6)
    assert engine.health().ready
    assert isinstance((await collect(engine, 2))[-1], Done)


async def test_a_stalled_stream_shows_in_health():
    engine = await started("stall:1")
    stream = engine.generate(Request("t", prompt="x"))
    async for event in stream:
        if isinstance(event, Delta):
            break
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.02)
    assert not engine.health().ready
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert engine.health().ready
    assert engine.stats().num_running == 0


async def test_prompts_are_remembered_in_blocks():
    engine = await started()
    text = "a long beginning that is always the same " * 5
    first, second = await collect(engine, prompt=text + "one"), await collect(engine, prompt=text + "two")
    assert isinstance(first[-1], Done)
    assert isinstance(second[-1], Done)
    assert first[-1].usage.cached_tokens == 0
    assert second[-1].usage.cached_tokens % 16 == 0
    assert second[-1].usage.cached_tokens > 16
    assert engine.stats().prefix_hits_total == second[-1].usage.cached_tokens
