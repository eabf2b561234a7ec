"""The worker process: one NativeEngine behind a socket. `python -m temper.engines.native.worker --fd N`.

It computes, and does what its parent says; it knows no HTTP and serves nobody else. It ends when its
parent does: by a signal from the kernel, and by the end of the socket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from temper.engines.base import Scores
from temper.engines.context import Context
from temper.engines.native import wire
from temper.engines.native.plain import section_of
from temper.errors import EngineFailure, TemperError
from temper.types import Done, Event, Failed, Request

if TYPE_CHECKING:
    from temper.engines.native.engine import NativeEngine
    from temper.engines.native.sequence import Job
    from temper.profile.native import NativeEngine as NativeSection

_log = logging.getLogger(__name__)
_BEAT_S = 0.2
_PR_SET_PDEATHSIG = 1
_ROWS_BYTES = 8 << 20
"""Arrays above this size go over in pieces of about it."""
_CALLS = frozenset(
    {"tokenize", "detokenize", "count_tokens", "score", "apply", "load_adapter", "unload_adapter", "start_trace",
     "stop_trace"}
)  # fmt: skip
_CHANGING = frozenset({"apply", "load_adapter", "unload_adapter"})
"""Calls after which the engine's capabilities may be others."""


class Worker:
    """Serves one engine to one parent."""

    def __init__(self, opener: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._opener = opener
        self._reader = reader
        self._writer = writer
        self._jobs: dict[int, Job] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._outbox: list[tuple[int, list[Event]]] = []
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Open the engine that the first message names, then serve until the parent is gone or says stop."""
        opened = await wire.read(self._reader)
        if opened is None:
            return
        _, section, cache_dir, home, hub_endpoint, adapters = opened
        try:
            context = Context(Path(cache_dir), Path(home), hub_endpoint)
            self._engine = engine = _opener(self._opener)(section_of(section), context)
            await engine.start()
            await self._load_again(adapters)
            gc.freeze()  # the model and all modules stay: later searches for garbage pass them by
            gc.enable()
        except Exception as error:
            self._send("failed", _as_temper_error(error))
            await self._writer.drain()
            return
        self._send("ready", engine.capabilities())
        self._spawn(self._beat())
        while (message := await wire.read(self._reader)) is not None:
            name, *rest = message
            if name == "stop":
                await asyncio.sleep(0)  # requests that came before it are let in
                await engine.stop(*rest)
                self._flush()
                self._send("stopped")
                await self._writer.drain()
                return
            getattr(self, f"_on_{name}")(*rest)

    async def _load_again(self, adapters: dict[str, str]) -> None:
        """What an earlier worker had loaded. One that is gone meanwhile must not keep the engine down."""
        for name, source in adapters.items():
            try:
                await self._engine.load_adapter(name, source)
            except TemperError as error:
                _log.error("the adapter '%s' could not be loaded again: %s", name, error)

    # -- messages ------------------------------------------------------------------------------------

    def _on_generate(self, stream: int, request: Request) -> None:
        self._tasks[stream] = asyncio.create_task(self._generate(stream, request))

    def _on_cancel(self, stream: int) -> None:
        if task := self._tasks.pop(stream, None):
            task.cancel()
        if job := self._jobs.pop(stream, None):
            self._engine.cancel(job)

    def _on_call(self, call: int, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._spawn(self._call(call, method, args, kwargs))

    async def _generate(self, stream: int, request: Request) -> None:
        try:
            self._jobs[stream] = await self._engine.open(request, partial(self._deliver, stream))
        except Exception as error:
            self._send("refused", stream, _as_temper_error(error))
        finally:
            self._tasks.pop(stream, None)

    def _deliver(self, stream: int, events: list[Event]) -> None:
        if not self._outbox:  # all that one step delivers leaves in one frame
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append((stream, events))
        if isinstance(events[-1], Done | Failed):
            self._jobs.pop(stream, None)

    def _flush(self) -> None:
        if self._outbox:
            if any(isinstance(events[-1], Done | Failed) for _, events in self._outbox):
                self._send("beat", self._engine.stats(), self._engine.health())  # an end finds its figures there
            self._send("events", self._outbox)
            self._outbox = []

    async def _call(self, call: int, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            if method not in _CALLS:
                raise EngineFailure(f"a worker has no method '{method}'")
            if method == "apply":
                args = (SimpleNamespace(engine=section_of(args[0])),)  # all of a profile that concerns an engine
            value = await getattr(self._engine, method)(*args, **kwargs)
            if method in _CHANGING:
                self._send("can", self._engine.capabilities())
            if isinstance(value, Scores):
                await self._send_scores(call, value)
                value = None
            self._send("result", call, value)
        except Exception as error:
            self._send("raised", call, _as_temper_error(error))

    async def _send_scores(self, call: int, scores: Scores) -> None:
        """A vocabulary for each token is too much for one frame."""
        for name in ("logprobs", "top_ids", "top_logprobs"):
            array = getattr(scores, name)
            if array is None:
                continue
            at_once = max(1, _ROWS_BYTES // max(1, array[:1].nbytes))
            for start in range(0, len(array), at_once):
                self._send("rows", call, name, start, array[start : start + at_once], len(array))
                await self._writer.drain()

    async def _beat(self) -> None:
        while True:
            self._send("beat", self._engine.stats(), self._engine.health())
            await asyncio.sleep(_BEAT_S)

    def _send(self, *message: Any) -> None:
        self._writer.write(wire.encode(message))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _opener(name: str) -> Callable[[NativeSection, Context], NativeEngine]:
    """What makes the engine of a section, not started."""
    module, _, function = name.partition(":")
    found: Callable[[NativeSection, Context], NativeEngine] = getattr(import_module(module), function)
    return found


def _as_temper_error(error: Exception) -> TemperError:
    if isinstance(error, TemperError):
        return error
    _log.exception("unexpected", exc_info=error)
    return EngineFailure(f"{type(error).__name__}: {error}")


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


async def _serve(fd: int, opener: str) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    await Worker(opener, reader, writer).run()


def main() -> None:
    """Run a worker on the socket that was inherited as file descriptor `--fd`."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--fd", type=int, required=True)
    arguments.add_argument("--parent", type=int, required=True)
    arguments.add_argument("--opener", required=True, help='"module:callable" that makes the engine')
    chosen = arguments.parse_args()
    _die_with_parent(chosen.parent)
    # The parent decides how things end: a Ctrl-C in the terminal reaches us too, and it wants to drain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gc.disable()  # until all is loaded: what imports and vocabularies make is no garbage
    # The step thread waits at most this long while the event loop hands out the step before.
    sys.setswitchinterval(0.0005)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    with contextlib.suppress(ImportError):  # told where the engine is opened
        _opener(chosen.opener)  # imported before we know what to open, maybe before our parent does
    asyncio.run(_serve(chosen.fd, chosen.opener))
    # Nothing is left to save, and a step may still be running: do not wait for its thread.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
