"""A real server on a loopback port, over the fake engine, spoken to by real clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx
import openai
import pytest
import uvicorn
from opentelemetry.trace import Tracer

from temper.engines.base import Engine
from temper.engines.fake import FakeEngine
from temper.profile import schema
from temper.server import Served, ServerSettings, create_app
from temper.server.run import bind


@dataclass
class Running:
    """A server that listens."""

    url: str
    state: Served

    @property
    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=30)

    def openai(self, **options: object) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**{"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0} | options)


@asynccontextmanager
async def running(
    engines: dict[str, Engine] | Engine, settings: ServerSettings | None = None, tracer: Tracer | None = None
) -> AsyncIterator[Running]:
    app = create_app(engines, settings=settings, tracer=tracer)
    with bind("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1, lifespan="on")
        server = uvicorn.Server(config)
        server.capture_signals = _no_signals  # the test runner keeps its own
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.005)
            if task.done():
                task.result()
        try:
            yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.temper)
        finally:
            server.should_exit = True
            await task


@contextmanager
def _no_signals():
    yield


def fake(script: str = "echo", **fields: object) -> FakeEngine:
    return FakeEngine(schema.FakeEngine.model_validate({"script": script, **fields}))


SCRIPTS = ("echo", "count", "words", "think", "cut", "stall", "slow", "crash", "error-429", "error-500")


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    """Every script under its own name as a model."""
    async with running({name: fake(name) for name in SCRIPTS}) as found:
        yield found


@pytest.fixture
async def client(server: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with server.openai() as found:
        yield found
