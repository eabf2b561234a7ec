"""Our own HTTP server over any engine, inside the test's event loop, on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from temper.engines.base import Engine
from temper.server import create_app


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[str]:
    """The URL of a server over `engine`, which it starts and stops."""
    config = uvicorn.Config(create_app(engine), port=0, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve())
    try:
        while not server.started:
            if task.done():
                task.result()
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
