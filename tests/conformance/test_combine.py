"""Every combinator keeps every rule of the seam, over fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from temper.engines.combine.balance import BalanceEngine
from temper.engines.combine.cached import CachedEngine
from temper.engines.combine.cascade import CascadeEngine
from temper.engines.combine.route import RouteEngine
from temper.engines.combine.split import SplitEngine
from temper.engines.fake import FakeEngine
from temper.engines.kinds import Context, build_section
from temper.profile import schema
from temper.profile.schema import ArmConfig, RouteConfig, RouteRule
from tests.conformance.engine import EngineSuite

FAKE = schema.FakeEngine(script="words", itl_ms=1)


def fakes(number: int) -> list[FakeEngine]:
    return [FakeEngine(FAKE) for _ in range(number)]


class Suite(EngineSuite):
    def build(self):
        raise NotImplementedError

    @pytest.fixture
    async def engine(self):
        found = self.build()
        await found.start()
        yield found
        await found.stop()


class TestBalance(Suite):
    def build(self):
        return BalanceEngine(schema.BalanceEngine(children=(FAKE,) * 3), engines=fakes(3))


class TestSplit(Suite):
    def build(self):
        arms = (
            ArmConfig(name="control", share=0.5, engine=FAKE),
            ArmConfig(name="canary", share=0.5, engine=FAKE),
            ArmConfig(name="shadow", share=1.0, shadow=True, engine=FAKE),
        )
        return SplitEngine(schema.SplitEngine(arms=arms), engines=fakes(3))


class TestRoute(Suite):
    def build(self):
        routes = (RouteConfig(name="small", engine=FAKE), RouteConfig(name="large", engine=FAKE))
        rules = (RouteRule(to="large", min_prompt_tokens=40),)
        return RouteEngine(schema.RouteEngine(routes=routes, rules=rules), engines=fakes(2))


class TestCascade(Suite):
    def build(self):
        return CascadeEngine(schema.CascadeEngine(steps=(FAKE, FAKE), truncated=False), engines=fakes(2))


class TestCached(Suite):
    def build(self):
        return CachedEngine(schema.CachedEngine(engine=FAKE), engine=fakes(1)[0])


class TestTree(Suite):
    def build(self):
        inner = schema.BalanceEngine(children=(FAKE, FAKE))
        whole = schema.CachedEngine(
            engine=schema.SplitEngine(
                arms=(
                    ArmConfig(name="old", share=0.9, engine=inner),
                    ArmConfig(name="new", share=0.1, engine=FAKE),
                )
            )
        )
        return build_section(whole, Context(Path(), Path()))
