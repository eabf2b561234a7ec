"""The openai engine keeps the rules of the seam, spoken to a real server of ours over a fake engine."""

from __future__ import annotations

import pytest

from temper.engines.fake import FakeEngine
from temper.engines.openai import Endpoint, OpenAIEngine
from temper.profile import schema
from tests.conformance.engine import EngineSuite
from tests.engines.serving import serving


class TestOpenAI(EngineSuite):
    @pytest.fixture
    async def engine(self):
        async with serving(FakeEngine(schema.FakeEngine(script="words", itl_ms=1))) as url:
            found = OpenAIEngine(schema.OpenAIEngine(), endpoint=Endpoint(url))
            await found.start()
            yield found
            await found.stop()
