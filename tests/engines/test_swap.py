"""A tree swapped under load loses, doubles and mixes nothing; hot changes swap nothing; failures change nothing."""

from __future__ import annotations

import asyncio
import random

import pytest

from temper.engines.base import Engine
from temper.engines.fake import FakeEngine
from temper.engines.kinds import Context, build
from temper.engines.swap import Swappable
from temper.errors import Draining, EngineDied, ProfileError, TemperError
from temper.profile import schema
from temper.profile.schema import Profile
from temper.types import Accepted, Delta, Done, Failed, Limits, Request, Started
from tests.conformance.engine import EngineSuite
from tests.waiting import until


def words(seed: int = 0, **fields) -> Profile:
    return Profile(engine=schema.FakeEngine(script="echo", seed=seed, **fields))


async def make(profile: Profile) -> Engine:
    assert isinstance(profile.engine, schema.FakeEngine)
    return FakeEngine(profile.engine)


@pytest.fixture
async def root():
    found = Swappable(words(), await make(words()), make)
    await found.start()
    yield found
    await found.stop()


class TestConformance(EngineSuite):
    @pytest.fixture
    async def engine(self):
        profile = Profile(engine=schema.FakeEngine(script="words", itl_ms=1))
        found = Swappable(profile, await make(profile), make)
        await found.start()
        yield found
        await found.stop()


async def ask(root: Swappable, number: int) -> str:
    """The answer, once the stream kept every rule."""
    text = f"{number} {number * 7919}"
    events = [event async for event in root.generate(Request(f"r{number}", prompt=text, limits=Limits(16)))]
    assert isinstance(events[0], Accepted)
    assert isinstance(events[1], Started)
    assert isinstance(events[-1], Done), events[-1]
    assert sum(isinstance(event, Accepted | Started | Done | Failed) for event in events) == 3
    said = "".join(event.text for event in events if isinstance(event, Delta))
    assert said == text
    return said


async def test_ten_thousand_requests_over_swaps(root: Swappable):
    """None lost, none doubled, none mixed, while the tree is swapped again and again."""
    draw = random.Random(3)
    waiting = iter(range(10_000))
    answers: dict[int, str] = {}

    async def client() -> None:
        for number in waiting:
            assert number not in answers
            answers[number] = await ask(root, number)
            if draw.random() < 0.1:
                await asyncio.sleep(0)

    swaps = 0

    async def swapper() -> None:
        nonlocal swaps
        while len(answers) < 10_000:
            swaps += 1
            changed = await root.change(words(swaps))
            assert changed.how == "swapped"
            await asyncio.sleep(0.05)

    before = root.stats().generation_tokens_total
    async with asyncio.TaskGroup() as group:
        group.create_task(swapper())
        for _ in range(48):
            group.create_task(client())
    assert len(answers) == 10_000
    assert swaps > 10
    for _ in range(100):
        if not root._old:
            break
        await asyncio.sleep(0.02)
    assert not root._old, "old trees are stopped once their streams have ended"
    assert root.stats().num_running == 0
    assert root.stats().generation_tokens_total - before > 10_000 * 2  # counters outlive their trees


async def test_a_stream_ends_where_it_began(root: Swappable):
    slow = words(1, itl_ms=5)
    await root.change(slow)
    stream = root.generate(Request("slow", prompt="one two three four five six seven", limits=Limits(50)))
    heard = [await anext(stream) for _ in range(4)]
    old = root._tree.engine
    await root.change(words(2))
    assert root._tree.engine is not old
    heard += [event async for event in stream]
    assert isinstance(heard[-1], Done)
    assert "".join(e.text for e in heard if isinstance(e, Delta)) == "one two three four five six seven"
    await until(lambda: not old.health().ready)


async def test_nothing_changes_when_nothing_differs(root: Swappable):
    tree = root._tree
    assert (await root.change(words())).how == "unchanged"
    assert root._tree is tree


async def test_hot_fields_swap_nothing():
    first = schema.BalanceEngine(children=(schema.FakeEngine(), schema.FakeEngine()))
    profile = Profile(engine=first)

    async def make_tree(wanted: Profile) -> Engine:
        raise AssertionError("nothing needs to be built")

    from pathlib import Path

    root = Swappable(profile, build(profile, context=Context(Path(), Path())), make_tree)
    await root.start()
    changed = await root.change(Profile(engine=first.model_copy(update={"retries": 0})))
    assert (changed.how, [change.path for change in changed.fields]) == ("applied", ["engine.retries"])
    changed = await root.change(Profile(engine=root.profile.engine, slo=schema.Slo(ttft_p99_ms=5.0)))
    assert changed.how == "applied"
    await root.stop()


async def test_a_tree_that_does_not_start_changes_nothing(root: Swappable):
    class Broken(FakeEngine):
        async def start(self) -> None:
            raise EngineDied("no memory")

    async def broken(profile: Profile) -> Engine:
        return Broken(profile.engine)

    root._make = broken
    with pytest.raises(EngineDied, match="the old one goes on: no memory"):
        await root.change(words(9))
    root._make = make
    with pytest.raises(ProfileError, match="no script"):
        await root.change(Profile(engine=schema.FakeEngine(script="nothing")))
    assert root.profile == words()
    await ask(root, 1)


async def test_stopping_ends_old_streams_too(root: Swappable):
    await root.change(Profile(engine=schema.FakeEngine(script="stall")))

    async def hang() -> TemperError:
        async for event in root.generate(Request("x", prompt="x")):
            if isinstance(event, Failed):
                return event.error
        raise AssertionError

    stuck = asyncio.create_task(hang())
    await asyncio.sleep(0.05)
    await root.change(words(4))
    await asyncio.wait_for(root.stop(), 5)
    assert isinstance(await asyncio.wait_for(stuck, 5), TemperError)
    with pytest.raises(Draining):
        await ask(root, 1)
