"""One engine in several trees: started once, stopped by the last, counted once."""

from __future__ import annotations

import pytest

from temper.engines.fake import FakeEngine
from temper.engines.shared import Shared
from temper.profile import schema
from temper.types import Limits, Request
from tests.conformance.engine import EngineSuite


class TestConformance(EngineSuite):
    @pytest.fixture
    async def engine(self):
        found = Shared(FakeEngine(schema.FakeEngine(script="words", itl_ms=1))).lend()
        await found.start()
        yield found
        await found.stop()


async def test_the_first_starts_it_and_the_last_stops_it():
    shared = Shared(FakeEngine(schema.FakeEngine(script="echo")))
    one, two = shared.lend(), shared.lend()
    await one.start()
    await two.start()
    await one.stop()
    assert two.health().ready
    await one.stop()
    assert two.health().ready
    await two.stop()
    assert not two.health().ready


async def test_the_newest_holder_shows_the_figures():
    shared = Shared(FakeEngine(schema.FakeEngine(script="echo")))
    one, two = shared.lend(), shared.lend()
    await one.start()
    async for _ in one.generate(Request("r", prompt="a b", limits=Limits(4))):
        pass
    counted = one.stats().generation_tokens_total
    assert counted > 0
    await two.start()
    assert (one.stats().generation_tokens_total, two.stats().generation_tokens_total) == (0, counted)
    await two.stop()
    assert one.stats().generation_tokens_total == counted
    await one.stop()
    assert (one.stats().generation_tokens_total, two.stats().generation_tokens_total) == (counted, 0)
