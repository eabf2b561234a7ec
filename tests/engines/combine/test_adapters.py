"""Adapters through engines over engines: everywhere or nowhere, who has them answers, and no old text is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from temper.engines.base import Engine
from temper.engines.combine.balance import BalanceEngine
from temper.engines.combine.cached import CachedEngine
from temper.engines.combine.route import RouteEngine
from temper.errors import CheckpointError, NotFound, Unsupported
from temper.profile import schema
from temper.types import Sampling
from tests.engines.native.adapting import adapting_engine, write
from tests.engines.native.fakes import ask, gather, make_engine


async def text(engine: Engine, adapter: str | None = None, prompt: str = "hello", **fields) -> str:
    return (await gather(engine, ask(prompt, adapter=adapter, **fields))).text()


def balance(engines: list[Engine]) -> BalanceEngine:
    sections = tuple(schema.NativeEngine() for _ in engines)
    return BalanceEngine(schema.BalanceEngine(children=sections), engines=engines)


async def test_every_replica_gets_an_adapter(tmp_path: Path):
    pair = [adapting_engine() for _ in range(2)]
    root = balance([engine for engine, _ in pair])
    await root.start()
    base = await text(root)
    await root.load_adapter("one", write(tmp_path / "one", "one"))
    assert root.capabilities().adapters == ("one",)
    assert [len(executor.attached) for _, executor in pair] == [1, 1]
    said = {await text(root, "one") for _ in range(4)}
    assert len(said) == 1
    assert said != {base}
    await root.unload_adapter("one")
    assert root.capabilities().adapters == ()
    assert [len(executor.attached) for _, executor in pair] == [0, 0]
    with pytest.raises(NotFound):
        await text(root, "one")
    with pytest.raises(NotFound):
        await root.unload_adapter("one")
    await root.stop()


async def test_what_one_replica_cannot_load_none_keeps(tmp_path: Path):
    good, executor = adapting_engine()
    small, _ = adapting_engine(lora=schema.AdapterLimits(max_rank=3))
    root = balance([good, small])
    await root.start()
    with pytest.raises(CheckpointError, match="at most 3"):
        await root.load_adapter("one", write(tmp_path / "one", "too long for the second"))
    assert root.capabilities().adapters == good.capabilities().adapters == ()
    assert not executor.attached or await until_empty(executor)
    await root.stop()


async def until_empty(executor) -> bool:
    import asyncio

    for _ in range(100):
        if not executor.attached:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_engines_that_take_none_are_passed_over(tmp_path: Path):
    plain, _ = make_engine()
    root = balance([plain])
    await root.start()
    with pytest.raises(Unsupported, match="capability 'adapters'"):
        await root.load_adapter("one", write(tmp_path / "one", "one"))
    await root.stop()


def route(engines: dict[str, Engine], **fields) -> RouteEngine:
    routes = [{"name": name, "engine": {"kind": "native"}} for name in engines]
    config = schema.RouteEngine.model_validate({"routes": routes, **fields})
    return RouteEngine(config, engines=list(engines.values()))


async def test_a_rule_may_choose_the_adapter(tmp_path: Path):
    able, _ = adapting_engine(adapters={"maths": write(tmp_path / "maths", "maths")})
    rules = [{"to": "able", "contains": ["sum"], "adapter": "maths"}, {"to": "plain"}]
    root = route({"plain": make_engine()[0], "able": able}, rules=rules)
    await root.start()
    assert root.capabilities().adapters == ("maths",)
    found = await gather(root, ask("the sum of two"))
    assert found.done.made_by.branch == "able"
    assert found.done.made_by.adapter is not None
    assert found.done.made_by.adapter.startswith("maths@")
    assert found.text() == await text(able, "maths", "the sum of two")
    found = await gather(root, ask("anything else"))
    assert (found.done.made_by.branch, found.done.made_by.adapter) == ("plain", None)
    await root.stop()


async def test_a_request_goes_to_who_has_its_adapter(tmp_path: Path):
    one, _ = adapting_engine(adapters={"maths": write(tmp_path / "maths", "maths")})
    two, _ = adapting_engine(adapters={"law": write(tmp_path / "law", "law")})
    root = route({"one": one, "two": two}, otherwise="load")
    await root.start()
    assert root.capabilities().adapters == ("maths", "law")
    assert len(root.capabilities().adapter_versions) == 2
    for _ in range(3):
        assert (await gather(root, ask(adapter="maths"))).done.made_by.branch == "one"
        assert (await gather(root, ask(adapter="law"))).done.made_by.branch == "two"
    with pytest.raises(NotFound):
        await text(root, "art")
    await root.stop()


async def test_a_cache_never_gives_a_reloaded_adapter_the_old_text(tmp_path: Path):
    child, _ = adapting_engine(adapters={"one": write(tmp_path / "one", "one")})
    root = CachedEngine(schema.CachedEngine(engine=schema.NativeEngine()), engine=child)
    await root.start()
    fixed = {"sampling": Sampling(temperature=0.0, seed=1)}
    first = await gather(root, ask(adapter="one", **fixed))
    assert (await gather(root, ask(adapter="one", **fixed))).done.made_by.cache_hit
    await root.load_adapter("one", write(tmp_path / "one", "another"), replace=True)
    second = await gather(root, ask(adapter="one", **fixed))
    assert not second.done.made_by.cache_hit
    assert second.text() != first.text()
    await root.stop()
