"""The real server and dashboard over an engine that says what a test wants, and a record of what was asked."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from temper.dashboard.router import OPEN_PATHS, create_router
from temper.engines.base import Capabilities, Engine, Health, Stats
from temper.errors import ContextTooLong, EngineDied, Invalid, QueueFull
from temper.measure.quality import ratings
from temper.server import ServerSettings, create_app, feedback
from temper.types import Accepted, Delta, Done, Event, Failed, Finished, Request, Started, Usage

MODEL = "scripted"
API_KEY = "s3cret"
PAUSE_S = 0.02

XSS = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script> [go](javascript:window.pwned=1)'
MARKDOWN = """# Heading

Some **bold**, *slanted* and `code`, and a [link](https://example.org/a).

- one
- two
  1. nested

```python
print("<b>not bold</b>")
```

| a | b |
|---|---|
| 1 | 2 |

> quoted
"""
ANSWERS = {"xss": XSS, "markdown": MARKDOWN, "chinese": "你好，世界。这是一个测试。"}
REFUSALS = {
    "busy": QueueFull("too much is waiting", retry_after_s=7),
    "bad": Invalid("'temperature' must be at most 5, but is 9", param="temperature"),
    "long": ContextTooLong("the prompt has 9000 tokens, the context 8192", param="messages"),
}


class ScriptedEngine(Engine):
    """Answers by the last message of the conversation."""

    name = MODEL

    def __init__(self) -> None:
        self.ready = True
        self.cancelled = threading.Event()
        self.num_running = 0

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        assert request.messages
        asked = request.messages[-1].content or ""
        if asked in REFUSALS:
            raise REFUSALS[asked]
        whole = False
        self.num_running += 1
        try:
            yield Accepted()
            yield Started(prompt_tokens=20, cached_tokens=10)
            await asyncio.sleep(2 * PAUSE_S)
            deltas = deltas_of(asked)
            for number, (channel, text) in enumerate(deltas):
                yield Delta(0, text, (number,), channel=channel)
                await asyncio.sleep(PAUSE_S)
            if asked == "broken":
                whole = True
                yield Failed(EngineDied("the engine died"))
                return
            yield Finished(0, "stop")
            thoughts = sum(channel == "reasoning" for channel, _ in deltas)
            whole = True
            yield Done(Usage(20, 10, len(deltas), thoughts))
        finally:
            self.num_running -= 1
            if not whole:
                self.cancelled.set()

    async def start(self) -> None: ...

    async def stop(self, drain_s: float = 0.0) -> None: ...

    def health(self) -> Health:
        return Health(alive=True, ready=self.ready, reason="" if self.ready else "no step for 12 s")

    def capabilities(self) -> Capabilities:
        return Capabilities(model=MODEL, context_length=8192, thinking=True, seed=True)

    def stats(self) -> Stats:
        used = 25 * self.num_running
        return Stats(num_running=self.num_running, kv_used_bytes=used, kv_budget_bytes=100, kv_usage=used / 100)


def deltas_of(asked: str) -> list[tuple[Any, str]]:
    if asked == "think":
        return [*(("reasoning", text) for text in ("Let ", "me ", "see.")), ("answer", "Forty"), ("answer", "-two.")]
    if asked == "endless":
        return [("answer", f"word{number} ") for number in range(3000)]
    text = ANSWERS.get(asked, f"You said: {asked} and I agree.")
    return [("answer", text[at : at + 5]) for at in range(0, len(text), 5)]


@dataclass
class Recorder:
    """Stands before the app: keeps the bodies of chat requests, and cuts the stream of the question `cut`."""

    app: ASGIApp
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != "/v1/chat/completions":
            await self.app(scope, receive, send)
            return
        raw = b""

        async def recording() -> Message:
            nonlocal raw
            message = await receive()
            raw += message.get("body", b"")
            if message["type"] == "http.request" and not message.get("more_body"):
                self.bodies.append(json.loads(raw))
            return message

        async def cutting(message: Message) -> None:
            if b"[DONE]" in message.get("body", b"") and self.bodies[-1]["messages"][-1]["content"] == "cut":
                message = {**message, "body": b""}
            await send(message)

        await self.app(scope, recording, cutting)


class Serving:
    """A server on a free port of this machine."""

    def __init__(self, api_keys: tuple[str, ...] = (), home: Path | None = None) -> None:
        self.engine = ScriptedEngine()
        settings = ServerSettings(api_keys=api_keys, open_paths=OPEN_PATHS)
        extensions = [create_router(home=home)]
        if home is not None:
            extensions.append(feedback.create_router(home / ratings.FILE))
        self.recorder = Recorder(create_app(self.engine, extensions=extensions, settings=settings))
        self._server = uvicorn.Server(uvicorn.Config(self.recorder, host="127.0.0.1", port=0, log_level="error"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            if time.monotonic() > deadline:
                raise TimeoutError("the server did not start")
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """Bodies of the chat requests since the last reset."""
        return self.recorder.bodies

    def reset(self) -> None:
        """Forget what a test before did."""
        self.recorder.bodies.clear()
        self.engine.cancelled.clear()
        self.engine.ready = True

    def stop(self) -> None:
        """Stop; returns when the port is free."""
        self._server.should_exit = True
        self._thread.join(10)
