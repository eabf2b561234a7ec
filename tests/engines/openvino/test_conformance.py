"""The openvino engine keeps the rules of the seam, over the real default model."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio

from temper.engines.base import Engine
from temper.engines.kinds import Context, build
from temper.profile.schema import BatchingConfig, OpenVINOEngine, OpenVINOKv, Profile
from tests.conformance.engine import EngineSuite
from tests.engines.native.test_conformance import CACHE

pytest.importorskip("openvino_genai", reason="the extra 'openvino' is not installed")

SMALL = OpenVINOEngine(kv=OpenVINOKv(budget_bytes=256 << 20), batching=BatchingConfig(max_sequences=16))


@pytest.mark.asyncio(loop_scope="class")
class TestOpenVINO(EngineSuite):
    SLACK_S = 2.0

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    async def shared(self, tmp_path_factory: pytest.TempPathFactory):
        place = Context(cache_dir=CACHE, home=Path(tmp_path_factory.mktemp("home")))
        found = build(Profile(engine=SMALL), context=place)
        yield found
        await found.stop()

    @pytest_asyncio.fixture(loop_scope="class")
    async def engine(self, shared: Engine):
        if not shared.health().ready:
            await shared.start()
        return shared
