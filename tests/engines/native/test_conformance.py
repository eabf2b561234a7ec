"""The native engine keeps the rules of the seam: over the fake executor, over the real model, behind a worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import pytest_asyncio

from temper.engines.base import Engine
from temper.engines.kinds import Context
from temper.engines.native.load import load_engine
from temper.engines.native.remote import WorkerEngine
from temper.profile.schema import BatchingConfig, KvConfig, NativeEngine
from tests.conformance.engine import EngineSuite
from tests.engines.native.adapting import adapting_engine, write

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "temper"
SMALL = NativeEngine(kv=KvConfig(budget_bytes=256 << 20), batching=BatchingConfig(max_sequences=16))


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Where the default model is kept, fetched if it must be."""
    pytest.importorskip("temper.kernels._native", reason="the native kernels are not built")
    return Context(cache_dir=CACHE, home=tmp_path_factory.mktemp("home"))


class TestFake(EngineSuite):
    @pytest.fixture
    async def engine(self, tmp_path: Path):
        adapters = {name: write(tmp_path / name, name) for name in ("one", "two")}
        found, _ = adapting_engine(
            max_step_tokens=64, num_blocks=512, context_length=8192, step_s=0.001, adapters=adapters
        )
        await found.start()
        yield found
        await found.stop()


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def shared(request: pytest.FixtureRequest, place: Context):
    found: Engine = request.cls.make(place)
    yield found
    await found.stop()


class OneEngine(EngineSuite):
    """One engine for all tests, started again where a test has stopped it: loading takes a while."""

    SLACK_S = 3.0  # a real step on a busy machine

    @pytest_asyncio.fixture(loop_scope="class")
    async def engine(self, shared: Engine):
        if not shared.health().ready:
            await shared.start()
        return shared

    @staticmethod
    def make(place: Context) -> Engine:
        raise NotImplementedError


@pytest.mark.asyncio(loop_scope="class")
class TestRealModel(OneEngine):
    @staticmethod
    def make(place: Context) -> Engine:
        return load_engine(SMALL, place)


@pytest.mark.asyncio(loop_scope="class")
class TestBehindAWorker(OneEngine):
    @staticmethod
    def make(place: Context) -> Engine:
        return WorkerEngine(SMALL, place)
