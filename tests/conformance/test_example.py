"""An engine that is none of ours, the one in the examples, keeps the same rules; so does a combinator over it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from temper.engines.combine.balance import BalanceEngine
from temper.profile import schema
from tests.conformance.engine import EngineSuite

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "10_your_own_engine.py"


def next_word() -> Any:
    spec = importlib.util.spec_from_file_location("your_own_engine", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NextWord()


class TestExample(EngineSuite):
    @pytest.fixture
    async def engine(self):
        found = next_word()
        await found.start()
        yield found
        await found.stop()


class TestBalanceOverExamples(EngineSuite):
    @pytest.fixture
    async def engine(self):
        children = (schema.FakeEngine(), schema.FakeEngine())
        found = BalanceEngine(schema.BalanceEngine(children=children), engines=[next_word(), next_word()])
        await found.start()
        yield found
        await found.stop()
