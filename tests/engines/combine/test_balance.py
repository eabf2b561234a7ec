"""Balance: circuits on a virtual clock, least work, warm prefixes, children that come late."""

from __future__ import annotations

import asyncio

import pytest

from temper.engines.combine import combinator
from temper.engines.combine.breaker import Breaker
from temper.engines.fake import FakeEngine
from temper.errors import Draining, EngineDied
from temper.profile import schema
from temper.types import Failed
from tests.engines.combine.trees import Clock, balance, done, fakes, hear, said


def branch(events) -> str:
    return done(events).made_by.branch


def test_a_circuit_opens_waits_tries_and_closes():
    clock = Clock()
    breaker = Breaker(3, 5.0, 12.0, clock)
    for _ in range(2):
        breaker.failed(trial=breaker.sent())
        assert breaker.state == "closed"
    breaker.failed(trial=breaker.sent())
    assert (breaker.state, breaker.lets_pass, breaker.wait_s) == ("open", False, 5.0)
    clock.now += 5
    assert (breaker.state, breaker.lets_pass) == ("half-open", True)
    assert breaker.sent()
    assert not breaker.lets_pass  # one trial at a time
    breaker.failed(trial=True)
    assert breaker.wait_s == 10  # twice as long
    clock.now += 10
    breaker.failed(trial=breaker.sent())
    assert breaker.wait_s == 12  # and no longer than the most
    clock.now += 12
    breaker.undecided(trial=breaker.sent())
    assert breaker.lets_pass  # the caller left: it may be tried again
    breaker.sent()
    breaker.succeeded()
    assert (breaker.state, breaker.openings_total) == ("closed", 3)
    breaker.failed(trial=breaker.sent())
    assert breaker.state == "closed"  # the count began anew


def test_a_success_in_between_keeps_it_closed():
    breaker = Breaker(2, 5.0, 60.0, Clock())
    for _ in range(10):
        breaker.failed(trial=breaker.sent())
        breaker.succeeded()
    assert breaker.state == "closed"


async def test_the_circuit_of_a_broken_child_opens_and_closes_again():
    clock = Clock()
    bad, good = fakes("fixed:mended", "fixed:fine")
    broken = FakeEngine(schema.FakeEngine(script="error-502"))
    plan = bad._plan
    bad._plan = broken._plan
    engine = balance("fixed:mended", "fixed:fine", clock=clock, engines=[bad, good], failures_to_open=2, open_s=5.0)
    await engine.start()
    for _ in range(10):
        assert said(await hear(engine)) == "fine"
    assert engine.stats().details["fake-0"]["circuit"] == "open"
    assert engine.stats().details["fake-0"]["failures_total"] == 2
    bad._plan = plan
    assert {branch(await hear(engine)) for _ in range(6)} == {"fake-1"}
    clock.now += 5
    assert engine.stats().details["fake-0"]["circuit"] == "half-open"
    assert {branch(await hear(engine)) for _ in range(6)} == {"fake-0", "fake-1"}
    assert engine.stats().details["fake-0"]["circuit"] == "closed"


async def test_when_all_circuits_are_open_callers_learn_when_to_come_back():
    clock = Clock()
    engine = balance("error-502", clock=clock, failures_to_open=1, open_s=7.0)
    await engine.start()
    assert isinstance((await hear(engine))[-1], Failed)
    clock.now += 3
    with pytest.raises(Draining, match="circuit of fake-0 is open") as caught:
        await hear(engine)
    assert caught.value.retry_after_s == 4


async def test_a_busy_child_is_no_broken_child():
    engine = balance("error-429", failures_to_open=1)
    await engine.start()
    with pytest.raises(Exception, match="line is full"):
        await hear(engine)
    assert engine.stats().details["fake-0"]["circuit"] == "closed"


async def test_the_least_work_is_counted_in_tokens():
    engine = balance("words+slow:5", "words+slow:5")
    await engine.start()
    long = asyncio.create_task(hear(engine, tokens=2000))
    await asyncio.sleep(0.02)
    short = [branch(await hear(engine, tokens=2)) for _ in range(5)]
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)
    assert len(set(short)) == 1, "all short answers come from the child without the long one"
    assert all(child["outstanding_tokens"] == 0 for child in engine.stats().details.values())


async def test_equal_beginnings_go_to_the_same_child():
    engine = balance("words", "words", "words", "words", prefix_affinity=True, prefix_chars=64)
    await engine.start()
    for book in range(20):
        opening = f"The book number {book} begins like this, and goes on for quite some time with: "
        assert len({branch(await hear(engine, f"{opening} page {page}")) for page in range(4)}) == 1
    used = {name for name, child in engine.stats().details.items() if child["requests_total"]}
    assert len(used) == 4, "different beginnings are spread"


async def test_affinity_ends_where_a_child_is_too_busy():
    engine = balance("words+slow:5", "words+slow:5", prefix_affinity=True, slack_tokens=100)
    await engine.start()
    tasks = [asyncio.create_task(hear(engine, "the same prompt", tokens=90)) for _ in range(8)]
    await asyncio.sleep(0.05)
    assert all(child["open_requests"] > 1 for child in engine.stats().details.values())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_child_that_does_not_start_is_started_again(monkeypatch):
    monkeypatch.setattr(combinator, "REVIVE_FIRST_S", 0.02)
    late, good = fakes("fixed:late", "fixed:good")
    start, tries = late.start, []

    async def slow_to_wake() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise EngineDied("not yet")
        await start()

    late.start = slow_to_wake
    engine = balance("fixed:late", "fixed:good", engines=[late, good])
    await engine.start()
    assert engine.health().ready
    assert {said(await hear(engine)) for _ in range(4)} == {"good"}
    await asyncio.sleep(0.3)
    assert {said(await hear(engine)) for _ in range(4)} == {"good", "late"}
    await engine.stop()


async def test_none_that_starts_is_an_error():
    dead = fakes("words")[0]

    async def never() -> None:
        raise EngineDied("gone")

    dead.start = never
    engine = balance("words", engines=[dead])
    with pytest.raises(EngineDied):
        await engine.start()
