"""The process engine keeps the rules of the seam, over a real process: our own server with a fake engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from temper.engines.base import Engine
from temper.engines.kinds import Context
from temper.engines.process import ProcessEngine
from temper.profile import schema
from tests.conformance.engine import EngineSuite

COMMAND = (sys.executable, "-m", "temper.cli", "serve", "--engine", "fake:words", "--set", "itl_ms=1.0",
           "--port", "{port}", "--drain", "0")  # fmt: skip


@pytest.mark.asyncio(loop_scope="class")
class TestProcess(EngineSuite):
    """One process for all tests, started again where a test has stopped it."""

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    async def shared(self, tmp_path_factory: pytest.TempPathFactory):
        home: Path = tmp_path_factory.mktemp("home")
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        section = schema.ProcessEngine(command=COMMAND, ready_path="/ready", pass_environment=("PYTHONPATH",))
        found = ProcessEngine(section, Context(home, home, environ=environ))
        yield found
        await found.stop()

    @pytest_asyncio.fixture(loop_scope="class")
    async def engine(self, shared: Engine):
        if not shared.health().ready:
            await shared.start()
        return shared
