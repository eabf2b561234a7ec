"""Each failure of the fake, through each combinator: the right end, nothing hangs, nothing lost that could be saved."""

from __future__ import annotations

import asyncio

import pytest

from temper.engines.base import Engine
from temper.errors import (
    DeadlineExceeded,
    Draining,
    EngineDied,
    EngineFailure,
    Invalid,
    OutOfMemory,
    QueueFull,
    TemperError,
)
from temper.types import Accepted, Done, Failed, Started
from tests.engines.combine.trees import balance, cached, cascade, done, hear, route, said, split

BEFORE: dict[str, type[TemperError]] = {
    "stall@0": EngineFailure,
    "cut@0": EngineFailure,
    "vanish@0": EngineDied,
    "crash@0": EngineDied,
    "error-500": EngineFailure,
    "error-502": EngineDied,
    "error-429": QueueFull,
    "error-503": Draining,
}
"""Failures before the first word, which another engine can make good."""
AFTER: dict[str, type[TemperError]] = {
    "stall": EngineFailure,
    "cut": EngineFailure,
    "vanish": EngineDied,
    "crash": EngineDied,
}
"""Failures after it: the client must learn of them."""
FINAL: dict[str, type[TemperError]] = {
    "error-400": Invalid,
    "error-504": DeadlineExceeded,
    "error-507": OutOfMemory,
}
"""What another try would not mend."""
HARMLESS = ("garbage", "wrong-usage", "slow-start:5", "slow:1", "leak:10", "itl:exponential(1)", "empty")

GOOD = "fixed:all is well"


def over(bad: str, kind: str) -> Engine:
    """A tree of this kind in which the request meets `bad` first."""
    silence = {"silence_s": 0.2}
    if kind == "balance":
        return balance(GOOD, bad, **silence)  # the first turn is the second child's
    if kind == "route":
        return route(bad, GOOD, otherwise="r0", **silence)
    if kind == "cascade":
        return cascade(bad, GOOD, truncated=False, **silence)
    if kind == "split":
        return split({"only": 1.0}, bad)
    if kind == "cached":
        return cached(bad)
    raise ValueError(kind)


async def meet(engine: Engine, **fields) -> tuple[list, TemperError | None]:
    """The events and the error that ended them; checks that the stream keeps its rules, and that it ends."""
    await engine.start()
    events: list = []
    try:
        async with asyncio.timeout(5):
            events = await hear(engine, **fields)
    except TemperError as error:
        return [], error
    finally:
        await engine.stop()
    assert isinstance(events[0], Accepted)
    assert sum(isinstance(event, Accepted) for event in events) == 1
    assert sum(isinstance(event, Started) for event in events) <= 1
    assert isinstance(events[-1], Done | Failed)
    assert sum(isinstance(event, Done | Failed) for event in events) == 1
    return events, events[-1].error if isinstance(events[-1], Failed) else None


@pytest.mark.parametrize("kind", ["balance", "route", "cascade"])
@pytest.mark.parametrize("bad", BEFORE)
async def test_a_failure_before_the_first_word_is_made_good(bad: str, kind: str):
    events, error = await meet(over(bad, kind))
    assert error is None
    assert said(events) == "all is well"
    assert (kind == "cascade") == bool(done(events).made_by.escalated)


@pytest.mark.parametrize("kind", ["split", "cached"])
@pytest.mark.parametrize(("bad", "expected"), BEFORE.items())
async def test_where_there_is_no_other_it_is_told(bad: str, expected: type[TemperError], kind: str):
    if bad == "stall@0":
        _, error = await meet(over(bad, kind), deadline_s=0.3)
        assert isinstance(error, DeadlineExceeded)
        return
    _, error = await meet(over(bad, kind))
    assert type(error) is expected


@pytest.mark.parametrize("kind", ["balance", "route", "split", "cached"])
@pytest.mark.parametrize(("bad", "expected"), AFTER.items())
async def test_a_failure_after_the_first_word_is_told_and_never_said_twice(
    bad: str, expected: type[TemperError], kind: str
):
    deadline = 0.3 if bad == "stall" and kind in ("split", "cached") else None
    events, error = await meet(over(bad, kind), deadline_s=deadline)
    assert type(error) is (DeadlineExceeded if deadline else expected)
    assert said(events) == "1 2 3"


@pytest.mark.parametrize("bad", AFTER)
async def test_a_cascade_saves_even_those(bad: str):
    events, error = await meet(over(bad, "cascade"))
    assert error is None
    assert said(events) == "all is well"
    (why,) = done(events).made_by.escalated
    assert why.startswith("fake-0: engine_")


@pytest.mark.parametrize("kind", ["balance", "route", "cascade", "split", "cached"])
@pytest.mark.parametrize(("bad", "expected"), FINAL.items())
async def test_what_no_other_try_would_mend_is_told(bad: str, expected: type[TemperError], kind: str):
    _, error = await meet(over(bad, kind))
    assert type(error) is expected


@pytest.mark.parametrize("kind", ["balance", "route", "split", "cached"])
@pytest.mark.parametrize("odd", HARMLESS)
async def test_what_is_merely_odd_passes(odd: str, kind: str):
    _, error = await meet(over(odd, kind))
    assert error is None


async def test_all_broken_says_so_once():
    events, error = await meet(balance("error-502", "error-500", silence_s=0.2))
    assert isinstance(error, EngineFailure)
    assert [type(event) for event in events] == [Accepted, Failed]


async def test_all_refusing_gives_the_shortest_wait():
    engine = balance("error-429:30", "error-429:4", "error-503:60")
    await engine.start()
    with pytest.raises(QueueFull) as caught:
        await hear(engine)
    assert caught.value.retry_after_s == 4


async def test_a_deadline_holds_over_all_tries():
    engine = balance("stall@0", "stall@0", "stall@0", silence_s=0.2)
    await engine.start()
    begin = asyncio.get_running_loop().time()
    events = await hear(engine, deadline_s=0.3)
    assert isinstance(events[-1].error, DeadlineExceeded)
    assert asyncio.get_running_loop().time() - begin < 1
    await engine.stop()
