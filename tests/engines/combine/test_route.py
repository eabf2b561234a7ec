"""Route: rules in order, and a cost model that learns who is fast at what."""

from __future__ import annotations

import asyncio

import pytest

from temper.engines.combine.cost import CostModel, Line
from temper.profile.schema import RouteRule
from temper.types import Message, Request
from tests.engines.combine.trees import done, hear, route


def branch(events) -> str:
    return done(events).made_by.branch


def test_a_line_is_found_again():
    line = Line()
    for x in (10, 200, 50, 1000, 400):
        line.see(x, 0.02 + x / 5000)
    assert line.fit == pytest.approx((0.02, 1 / 5000))
    assert line.at(2000) == pytest.approx(0.42)


def test_a_line_is_never_negative():
    falling, steep = Line(), Line()
    for x, y in ((1, 5.0), (2, 3.0), (3, 1.0)):
        falling.see(x, y)
    assert falling.fit[1] == 0
    for x, y in ((10, 0.0), (20, 10.0), (30, 20.0)):
        steep.see(x, y)
    assert steep.at(0) == 0


def test_the_model_forgets():
    model = CostModel()
    for _ in range(50):
        model.see(100, 1.0, 11, 1.0, 0)
    for _ in range(400):
        model.see(100, 0.1, 11, 0.1, 0)
    assert model.expect_s(100, 11, 0) == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ({"min_prompt_tokens": 50}, {"prompt": "word " * 100}, {"prompt": "word"}),
        ({"max_prompt_tokens": 50}, {"prompt": "word"}, {"prompt": "word " * 100}),
        ({"min_output_tokens": 9}, {"tokens": 10}, {"tokens": 4}),
        ({"tenants": ("vip",)}, {"tenant": "vip"}, {"tenant": "other"}),
        ({"contains": ("Translate",)}, {"prompt": "please TRANSLATE this"}, {"prompt": "please do this"}),
        ({"min_prompt_tokens": 50, "tenants": ("vip",)}, {"prompt": "word " * 99, "tenant": "vip"}, {"tenant": "vip"}),
    ],
)
async def test_rules(rule: dict, yes: dict, no: dict):
    engine = route("echo", "echo", rules=(RouteRule(to="r1", **rule),), otherwise="r0")
    await engine.start()
    assert branch(await hear(engine, **{"prompt": "x"} | yes)) == "r1"
    assert branch(await hear(engine, **{"prompt": "x"} | no)) == "r0"


async def test_the_last_user_message_is_what_contains_looks_at():
    engine = route("echo", "echo", rules=(RouteRule(to="r1", contains=("sql",)),), otherwise="r0")
    said_before = (Message("user", "SQL?"), Message("assistant", "yes"), Message("user", "thanks"))
    assert not engine._holds(engine._config.rules[0], Request("t", messages=said_before), 1, 1)


async def test_load_spreads():
    engine = route("words+slow:5", "words+slow:5", otherwise="load")
    await engine.start()
    found = await asyncio.gather(*(hear(engine, tokens=5) for _ in range(10)))
    assert sorted(map(branch, found)) == ["r0"] * 5 + ["r1"] * 5


async def test_short_answers_to_one_long_ones_to_the_other():
    """`cpu` starts at once and writes slowly, `gpu` starts late and writes fast: nobody said so in the profile."""
    import time

    engine = route(
        "words+slow:4",
        "words+slow-start:60+slow:0",
        names=["cpu", "gpu"],
        clock=time.monotonic,
        explore=0.0,
    )
    await engine.start()
    for tokens in (2, 40) * 8:
        await hear(engine, tokens=tokens)
    engine._outputs[False].value = 100.0  # the limit decides below
    assert {branch(await hear(engine, tokens=3)) for _ in range(4)} == {"cpu"}
    engine._outputs[False].value = 100.0
    assert branch(await hear(engine, tokens=60)) == "gpu"
    shown = engine.stats().details["cpu"]
    assert 10 < shown["decode_tokens_per_s"] < 260


async def test_within_the_target_the_cheaper_one_is_taken():
    engine = route("echo", "echo", names=["dear", "cheap"], prices=[10.0, 1.0], target_s=1.0, explore=0.0)
    for name, seconds in (("dear", 0.1), ("cheap", 0.5)):
        for _ in range(5):
            engine._routes[name].cost.see(1, seconds, 2, 0.01, 0)
    await engine.start()
    assert branch(await hear(engine)) == "cheap"
    for _ in range(200):
        engine._routes["cheap"].cost.see(1, 5.0, 2, 0.01, 0)
    assert branch(await hear(engine)) == "dear"


async def test_now_and_then_the_others_are_tried():
    engine = route("echo", "echo", explore=0.1)
    for name, seconds in (("r0", 0.1), ("r1", 0.5)):
        for _ in range(5):
            engine._routes[name].cost.see(10, seconds, 2, 0.01, 0)
    await engine.start()
    found = [branch(await hear(engine)) for _ in range(100)]
    assert 5 <= found.count("r1") <= 40
