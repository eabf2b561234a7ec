"""Short ways to build combinators over fakes and to hear them out."""

from __future__ import annotations

from temper.engines.base import Engine
from temper.engines.combine.balance import BalanceEngine
from temper.engines.combine.cached import CachedEngine
from temper.engines.combine.cascade import CascadeEngine
from temper.engines.combine.route import RouteEngine
from temper.engines.combine.split import SplitEngine
from temper.engines.fake import FakeEngine
from temper.profile import schema
from temper.profile.schema import ArmConfig, RouteConfig
from temper.types import Delta, Done, Event, Limits, Request


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def sections(*scripts: str) -> tuple[schema.FakeEngine, ...]:
    return tuple(schema.FakeEngine(script=script) for script in scripts)


def fakes(*scripts: str) -> list[FakeEngine]:
    return [FakeEngine(section) for section in sections(*scripts)]


def balance(*scripts: str, clock: Clock | None = None, engines: list[Engine] | None = None, **fields) -> BalanceEngine:
    config = schema.BalanceEngine(children=sections(*scripts), **{"prefix_affinity": False} | fields)
    return BalanceEngine(config, engines=engines or fakes(*scripts), clock=clock or Clock())


def split(shares: dict[str, float], *scripts: str, shadows: tuple[str, ...] = (), **fields) -> SplitEngine:
    arms = tuple(
        ArmConfig(name=name, share=share, shadow=name in shadows, engine=section)
        for (name, share), section in zip(shares.items(), sections(*scripts), strict=True)
    )
    return SplitEngine(schema.SplitEngine(arms=arms, **fields), engines=fakes(*scripts))


def route(*scripts: str, clock: Clock | None = None, engines: list[Engine] | None = None, **fields) -> RouteEngine:
    names = fields.pop("names", [f"r{number}" for number in range(len(scripts))])
    prices = fields.pop("prices", [1.0] * len(scripts))
    routes = tuple(
        RouteConfig(name=name, price=price, engine=section)
        for name, price, section in zip(names, prices, sections(*scripts), strict=True)
    )
    config = schema.RouteEngine(routes=routes, **fields)
    return RouteEngine(config, engines=engines or fakes(*scripts), clock=clock or Clock())


def cascade(*scripts: str, **fields) -> CascadeEngine:
    return CascadeEngine(schema.CascadeEngine(steps=sections(*scripts), **fields), engines=fakes(*scripts))


def cached(script: str, clock: Clock | None = None, **fields) -> CachedEngine:
    (section,) = sections(script)
    config = schema.CachedEngine(engine=section, **fields)
    return CachedEngine(config, engine=FakeEngine(section), clock=clock or Clock())


async def hear(engine: Engine, prompt: str = "x", *, tokens: int = 10, id: str = "t", **fields) -> list[Event]:
    request = Request(id, prompt=prompt, limits=Limits(tokens), **fields)
    return [event async for event in engine.generate(request)]


def said(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def done(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done), events[-1]
    return events[-1]
