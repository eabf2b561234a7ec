"""The fake engine keeps every rule of the seam, so tests that use it may trust it."""

from __future__ import annotations

import pytest

from temper.engines.fake import FakeEngine
from temper.profile import schema
from tests.conformance.engine import EngineSuite


class TestFakeWords(EngineSuite):
    @pytest.fixture
    async def engine(self):
        found = FakeEngine(schema.FakeEngine(script="words", itl_ms=1))
        await found.start()
        yield found
        await found.stop()


class TestFakeEcho(EngineSuite):
    prompt = "Grüße an alle: hier steht ein Satz mit mehr als vierundzwanzig kleinen Teilen, und er geht weiter 🙂 so"

    @pytest.fixture
    async def engine(self):
        found = FakeEngine(schema.FakeEngine(script="echo", itl_ms=1))
        await found.start()
        yield found
        await found.stop()
