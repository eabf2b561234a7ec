"""Split: shares, sticky callers, arms recorded before anything happens, shadows that nobody notices."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from temper.engines.combine.split import SplitEngine
from temper.errors import QueueFull
from temper.profile import schema
from temper.profile.schema import ArmConfig, Profile
from temper.types import Request
from tests.engines.combine.trees import done, hear, said, sections, split


def arms(engine: SplitEngine, number: int = 20_000, **fields) -> list[str]:
    return [engine.arm_of(Request(f"id-{i}", prompt="x", **fields)) for i in range(number)]


def test_shares_are_what_was_asked():
    engine = split({"control": 0.9, "canary": 0.09, "other": 0.01}, "echo", "echo", "echo")
    found = arms(engine)
    for name, share in (("control", 0.9), ("canary", 0.09), ("other", 0.01)):
        sigma = (share * (1 - share) / len(found)) ** 0.5
        assert abs(found.count(name) / len(found) - share) < 4 * sigma


def test_zero_is_nobody_and_one_is_everybody():
    assert set(arms(split({"control": 1.0, "canary": 0.0}, "echo", "echo"), 2000)) == {"control"}
    assert set(arms(split({"control": 0.0, "canary": 1.0}, "echo", "echo"), 2000)) == {"canary"}


def test_raising_a_share_moves_nobody_back():
    before = arms(split({"control": 0.95, "canary": 0.05}, "echo", "echo"))
    after = arms(split({"control": 0.8, "canary": 0.2}, "echo", "echo"))
    assert all(b == "canary" for a, b in zip(before, after, strict=True) if a == "canary")


def test_callers_stick():
    engine = split({"a": 0.5, "b": 0.5}, "echo", "echo", sticky="tenant")
    assert len(set(arms(engine, 50, tenant="one"))) == 1
    assert {arms(engine, 1, tenant=f"t{i}")[0] for i in range(50)} == {"a", "b"}
    assert len(set(arms(engine, 200))) == 2  # without a tenant the request decides
    other = split({"a": 0.5, "b": 0.5}, "echo", "echo", sticky="tenant", seed=1)
    tenants = [f"t{i}" for i in range(50)]
    assert [arms(engine, 1, tenant=t) for t in tenants] != [arms(other, 1, tenant=t) for t in tenants]


async def test_an_extension_may_be_the_key_and_goes_no_further():
    engine = split({"a": 0.5, "b": 0.5}, "echo", "echo", sticky="extension:user")
    await engine.start()
    branches = {done(await hear(engine, id=f"{i}", extensions={"user": "eve"})).made_by.branch for i in range(10)}
    assert len(branches) == 1


async def test_the_arm_is_recorded_before_the_request_goes_out():
    engine = split({"only": 1.0}, "error-429")
    recorded = []
    engine.record = lambda request, arm: recorded.append((request.id, arm))
    await engine.start()
    with pytest.raises(QueueFull):
        await hear(engine, id="lost")
    assert recorded == [("lost", "only")]
    assert engine.stats().details["only"] == {"requests_total": 1, "failures_total": 0, "unfinished_total": 1}


@pytest.mark.parametrize("script", ["crash@0", "error-429", "stall", "cut", "fixed:something else", "garbage"])
async def test_a_shadow_is_never_noticed(script: str):
    engine = split({"main": 1.0, "shadow": 1.0}, "fixed:the answer", script, shadows=("shadow",))
    await engine.start()
    for number in range(5):
        events = await asyncio.wait_for(hear(engine, id=str(number)), 2)
        assert said(events) == "the answer"
        assert done(events).made_by.branch == "main"
    await asyncio.sleep(0.05)
    now = engine.stats()
    assert now.details["shadow"]["requests_total"] == 5
    assert now.num_running == 0, "shadows are not part of the sums"
    assert engine.health().ready
    await asyncio.wait_for(engine.stop(), 2)


async def test_a_shadow_gets_its_share_and_not_more_than_allowed():
    engine = split({"main": 1.0, "shadow": 0.5}, "echo", "stall", shadows=("shadow",), max_shadows=3)
    await engine.start()
    for number in range(40):
        await hear(engine, id=str(number))
    counts = engine.stats().details["shadow"]
    assert counts["requests_total"] == 3
    assert 8 <= counts["requests_total"] + counts["unfinished_total"] <= 32
    await engine.stop()


async def test_shares_change_while_it_runs():
    engine = split({"a": 1.0, "b": 0.0}, "echo", "echo")
    await engine.start()
    one, two = sections("echo", "echo")
    shares = (ArmConfig(name="a", share=0.0, engine=one), ArmConfig(name="b", share=1.0, engine=two))
    assert await engine.apply(Profile(engine=schema.SplitEngine(arms=shares)))
    assert set(arms(engine, 100)) == {"b"}
    renamed = (ArmConfig(name="a", share=0.0, engine=one), ArmConfig(name="c", share=1.0, engine=two))
    assert not await engine.apply(Profile(engine=schema.SplitEngine(arms=renamed)))


def test_shares_must_be_whole():
    with pytest.raises(ValidationError, match="must be 1 in all"):
        split({"a": 0.5, "b": 0.4}, "echo", "echo")
