"""Cached: equal means equal in everything, only whole answers stay, and the same work is done once."""

from __future__ import annotations

import asyncio

import pytest

from temper.errors import DeadlineExceeded, Invalid
from temper.profile import schema
from temper.profile.schema import Profile
from temper.types import Accepted, Failed, Sampling, Stop
from tests.engines.combine.trees import Clock, cached, done, hear, said

COLD = Sampling(temperature=0.0)


def state(events) -> str:
    assert isinstance(events[0], Accepted)
    return events[0].cache


async def test_the_second_time_it_is_played_again():
    engine = cached("words")
    await engine.start()
    first, second = await hear(engine, sampling=COLD), await hear(engine, id="other", sampling=COLD)
    assert (state(first), state(second)) == ("miss", "hit")
    assert second[1:-1] == first[1:-1]
    assert done(second).usage == done(first).usage
    assert (done(first).made_by.cache_hit, done(second).made_by.cache_hit) == (False, True)
    assert engine.stats().details["hits_total"] == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "y"},
        {"tokens": 9},
        {"sampling": Sampling(temperature=0.0, top_p=0.9)},
        {"sampling": Sampling(temperature=0.0, repetition_penalty=1.1)},
        {"sampling": Sampling(temperature=0.0, logit_bias=((5, 1.0),))},
        {"sampling": Sampling(seed=1)},
        {"stop": Stop(strings=("a",))},
        {"stop": Stop(ignore_eos=True)},
        {"n": 2},
        {"logprobs": 0},
        {"echo": True},
        {"tenant": "other"},
    ],
)
async def test_everything_that_shapes_an_answer_is_in_the_key(changed: dict):
    engine = cached("words")
    await engine.start()
    await hear(engine, sampling=COLD)
    assert state(await hear(engine, **{"prompt": "x", "sampling": COLD} | changed)) == "miss"


@pytest.mark.parametrize("ignored", [{"id": "z"}, {"priority": 5}, {"deadline_s": 9.0}])
async def test_what_does_not_is_not(ignored: dict):
    engine = cached("words")
    await engine.start()
    await hear(engine, sampling=COLD)
    assert state(await hear(engine, sampling=COLD, **ignored)) == "hit"


async def test_who_may_be_kept():
    engine = cached("words")
    await engine.start()
    for fields, expected in (
        ({}, "bypass"),
        ({"sampling": Sampling(temperature=0.7)}, "bypass"),
        ({"sampling": Sampling(temperature=0.7, seed=3)}, "miss"),
        ({"extensions": {"cache": "on"}}, "miss"),
        ({"sampling": COLD, "extensions": {"cache": "no-store"}}, "bypass"),
    ):
        assert state(await hear(engine, **fields)) == expected
    with pytest.raises(Invalid, match="'on' or 'no-store'"):
        await hear(engine, extensions={"cache": "maybe"})


@pytest.mark.parametrize("script", ["cut", "error-500", "vanish"])
async def test_what_broke_is_not_kept(script: str):
    engine = cached(script)
    await engine.start()
    for _ in range(2):
        events = await hear(engine, sampling=COLD)
        assert state(events) == "miss"
        assert isinstance(events[-1], Failed)
    assert engine.stats().details["entries"] == 0


async def test_equal_questions_at_once_are_computed_once():
    engine = cached("words+slow:2")
    await engine.start()
    found = await asyncio.gather(*(hear(engine, id=str(i), sampling=COLD) for i in range(20)))
    assert len({said(events) for events in found}) == 1
    assert engine.stats().generation_tokens_total == 10
    details = engine.stats().details
    assert (details["misses_total"], details["joined_total"]) == (1, 19)


async def test_the_work_goes_on_while_anybody_listens():
    engine = cached("words+slow:5")
    await engine.start()
    first = asyncio.create_task(hear(engine, sampling=COLD))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(hear(engine, sampling=COLD))
    await asyncio.sleep(0.01)
    first.cancel()
    assert len(said(await second)) > 10
    third = asyncio.create_task(hear(engine, prompt="z", sampling=COLD))
    await asyncio.sleep(0.01)
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    assert engine.stats().num_running == 0


async def test_a_deadline_is_one_callers():
    engine = cached("words+slow:20")
    await engine.start()
    slow = asyncio.create_task(hear(engine, sampling=COLD))
    hasty = await hear(engine, sampling=COLD, deadline_s=0.05)
    assert isinstance(hasty[-1].error, DeadlineExceeded)
    done(await slow)


async def test_the_budget_holds_and_the_oldest_leave():
    engine = cached("words", budget_bytes=60_000)
    await engine.start()
    for number in range(60):
        await hear(engine, prompt=f"p{number}", sampling=COLD)
        await hear(engine, prompt="p0", sampling=COLD)
    details = engine.stats().details
    assert 0 < details["bytes"] <= 60_000
    assert details["evicted_total"] > 0
    assert state(await hear(engine, prompt="p0", sampling=COLD)) == "hit"  # asked for all the time
    assert state(await hear(engine, prompt="p1", sampling=COLD)) == "miss"
    await hear(engine, prompt="large", tokens=500, sampling=COLD)
    assert state(await hear(engine, prompt="large", tokens=500, sampling=COLD)) == "miss"  # too large to keep


async def test_answers_age():
    clock = Clock()
    engine = cached("words", clock=clock, max_age_s=10.0)
    await engine.start()
    await hear(engine, sampling=COLD)
    clock.now += 9
    assert state(await hear(engine, sampling=COLD)) == "hit"
    clock.now += 2
    assert state(await hear(engine, sampling=COLD)) == "miss"


async def test_own_fields_change_hot_and_keep_what_is_there():
    engine = cached("words")
    await engine.start()
    await hear(engine, sampling=COLD)
    same = schema.CachedEngine(engine=schema.FakeEngine(script="words"), max_age_s=None)
    assert await engine.apply(Profile(engine=same))
    assert state(await hear(engine, sampling=COLD)) == "hit"
