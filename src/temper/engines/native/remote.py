"""The native engine as the API process sees it: a worker process, supervised.

Passes requests over and events back, rejects what the worker would reject without asking it, and
starts a new worker when one dies or hangs. It imports nothing that computes, so the API process
stays small. The messages are listed in `wire.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from temper.engines import NATIVE
from temper.engines.base import Capabilities, Engine, Health, Stats
from temper.engines.native import wire
from temper.engines.native.admission import Admission, Ticket
from temper.engines.native.hot import change_adapters
from temper.engines.native.plain import values_of
from temper.engines.native.spawn import WorkerProcess, worker
from temper.errors import DeadlineExceeded, Draining, EngineDied, EngineFailure, TemperError
from temper.profile.schema import NativeEngine as NativeSection
from temper.profile.schema import Profile
from temper.types import Accepted, Done, Event, Failed, Message, Request, Started

if TYPE_CHECKING:
    from temper.engines.base import Scores
    from temper.engines.context import Context
    from temper.engines.tracing import EngineTrace

_log = logging.getLogger(__name__)
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 30.0
_BEAT_TIMEOUT_S = 5.0
_STOP_GRACE_S = 10.0
_GOODBYE_S = 1.0
_DEADLINE_GRACE_S = 1.0
"""The worker answers its deadlines itself; only one that hangs is this late."""


class _Stream:
    """An open request: its events, and its place at the door."""

    __slots__ = ("begun", "queue", "ticket")

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.begun = False
        self.queue: asyncio.Queue[list[Event] | TemperError] = asyncio.Queue()

    def fail(self, error: TemperError) -> None:
        """End the stream with `error`, in the shape that a stream has."""
        self.queue.put_nowait([Failed(error)] if self.begun else [Accepted(), Failed(error)])


class WorkerEngine(Engine):
    """The same engine behind a process border. One event loop at a time: the one that called `start`."""

    name = "native"

    def __init__(
        self,
        section: NativeSection,
        context: Context,
        *,
        opener: str = NATIVE,
        kill_after_s: float = 120.0,
        beat_timeout_s: float = _BEAT_TIMEOUT_S,
    ) -> None:
        """`opener` ("module:callable") makes the engine in the worker.

        A worker that says nothing for `beat_timeout_s` counts as hung; one that is not ready for
        `kill_after_s` is killed, and a new one started.
        """
        self._section = section
        self._context = context
        self._opener = opener
        self._kill_after_s = kill_after_s
        self._beat_timeout_s = beat_timeout_s
        self._admission = Admission(section.admission.max_waiting, section.batching.max_sequences)
        self._ids = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._rows: dict[int, dict[str, Any]] = {}
        self._adapters = dict(section.adapters)
        """Those that are offered now: the profile's, and what was loaded and unloaded since."""
        self._process: WorkerProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._capabilities: Capabilities | None = None
        self._is_up = False
        self._stopping = False
        self._opened_with: dict[str, str] = {}
        self._why = "not started"
        self._last_beat = self._last_ready = 0.0
        self._health = Health(alive=True, ready=False, reason="not started")
        self._stats = self._past = Stats()

    # -- life ----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start the worker; it loads its model while the caller does something else."""
        if self._process is None:
            self._process = self._spawn()

    async def start(self) -> None:
        """Start the worker, if it is not prepared, and return when it has loaded its model. Raises what kept it
        from that."""
        self._stopping = False
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(up))
        await up

    async def stop(self, drain_s: float = 0.0) -> None:
        """Take nothing new, let the worker finish for `drain_s` seconds, then end it."""
        self._stopping = True
        self._why = "draining"
        if self._supervisor is None:
            await self._end()  # prepared, and never started
            return
        if self._is_up:
            self._send("stop", float(drain_s))
            await asyncio.wait({self._supervisor}, timeout=drain_s + _STOP_GRACE_S)
        self._supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._supervisor
        self._supervisor = None

    def health(self) -> Health:
        """The worker's own word, as long as it gives one."""
        if self._stopping or not self._is_up:
            return Health(alive=True, ready=False, reason=self._why)
        silent = time.monotonic() - self._last_beat
        if silent > self._beat_timeout_s:
            return Health(alive=True, ready=False, reason=f"the worker has said nothing for {silent:.1f} s")
        return self._health

    def capabilities(self) -> Capabilities:
        """As the worker declared them."""
        if self._capabilities is None:
            raise Draining("the engine is not started", retry_after_s=1.0)
        return self._capabilities

    def stats(self) -> Stats:
        """The worker's last snapshot; totals go on over restarts."""
        now = self._stats if self._is_up else Stats(kv_budget_bytes=self._stats.kv_budget_bytes)
        return replace(_added(self._past, now), num_waiting=max(now.num_waiting, self._admission.num_waiting))

    # -- requests ------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        """Stream the events of `request`; see `Engine.generate`."""
        self._check_up()
        ticket = self._admission.enter(max(1, request.n))
        stream, number = _Stream(ticket), next(self._ids)
        self._streams[number] = stream
        late = None
        try:
            self._send("generate", number, request)
            if request.deadline_s is not None:
                error = DeadlineExceeded(f"not complete {request.deadline_s} s after arrival, its deadline")
                late = asyncio.get_running_loop().call_later(
                    max(0.0, request.deadline_s) + _DEADLINE_GRACE_S, stream.fail, error
                )
            while True:
                events = await stream.queue.get()
                if isinstance(events, TemperError):
                    raise events
                stream.begun = True
                for event in events:
                    yield event
                if isinstance(events[-1], Done | Failed):
                    return
        finally:
            if late is not None:
                late.cancel()
            self._admission.left(ticket)
            if self._streams.pop(number, None) is not None and self._is_up:
                self._send("cancel", number)

    async def tokenize(self, text: str | Sequence[Message], *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, or of a conversation under the chat template."""
        given = text if isinstance(text, str) else tuple(text)
        return list(await self._call("tokenize", given, add_special_tokens=add_special_tokens))

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(await self._call("detokenize", list(token_ids)))

    async def count_tokens(self, request: Request) -> int:
        """Length of the request's prompt in tokens."""
        return int(await self._call("count_tokens", request))

    async def score(self, tokens: Sequence[int], top_k: int | None = None) -> Scores:
        """Log-probabilities of `tokens`; see `Engine.score`."""
        from temper.engines.base import Scores

        found = await self._call("score", list(tokens), top_k)
        return Scores(found["logprobs"], found.get("top_ids"), found["top_logprobs"])

    async def start_trace(self) -> None:
        """Begin to measure where the worker's time goes."""
        await self._call("start_trace")

    async def stop_trace(self) -> EngineTrace:
        """What the worker found since `start_trace`."""
        found: EngineTrace = await self._call("stop_trace")
        return found

    async def load_adapter(self, name: str, source: str, *, replace: bool = False) -> None:
        """As the worker does; a later worker loads it too."""
        await self._call("load_adapter", name, source, replace=replace)
        self._adapters[name] = source

    async def unload_adapter(self, name: str, *, wait: bool = True) -> None:
        """As the worker does."""
        self._check_up()
        self._adapters.pop(name, None)
        await self._call("unload_adapter", name, wait=wait)

    async def apply(self, profile: Profile) -> bool:
        """Take over what may change while running; a later worker starts with it too."""
        new = profile.engine
        if not isinstance(new, NativeSection):
            return False
        # Which adapters there are is kept here, so the worker's own section never differs in them.
        if not await self._call("apply", values_of(new) | {"adapters": self._opened_with}):
            return False
        await change_adapters(self, self._section.adapters, new.adapters)
        self._section = new
        self._admission.max_waiting = new.admission.max_waiting
        return True

    # -- the worker ----------------------------------------------------------------------------------

    async def _supervise(self, up: asyncio.Future[None]) -> None:
        """Keep a worker running until told to stop; the first one answers for `start`."""
        backoff_s = _FIRST_BACKOFF_S
        while True:
            began = time.monotonic()
            try:
                await self._live(up)
            except asyncio.CancelledError:
                raise
            except (TemperError, OSError) as error:
                if not up.done():
                    up.set_exception(error)
                    return
                self._why = str(error)
            if not up.done():
                up.set_exception(EngineDied("the worker ended before it was ready", hint="see its log above"))
                return
            if self._stopping:
                return
            if time.monotonic() - began > _LONGEST_BACKOFF_S:
                backoff_s = _FIRST_BACKOFF_S
            _log.error("the worker is gone (%s); a new one starts in %.1f s", self._why, backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)

    async def _live(self, up: asyncio.Future[None]) -> None:
        """One worker's life, from spawn to end. Whatever is open when it ends fails."""
        self.prepare()
        watch = asyncio.create_task(self._watch())
        try:
            reader = await self._connect()
            while (message := await wire.read(reader)) is not None:
                name, *rest = message
                if name == "stopped":
                    break
                if name == "failed":
                    raise rest[0]
                getattr(self, f"_on_{name}")(*rest)
                if name == "ready" and not up.done():
                    up.set_result(None)
        finally:
            watch.cancel()
            was_up, self._is_up = self._is_up, False
            # One that still loads does not hear that it shall go.
            code = await self._end(0.0 if self._stopping and not was_up else _GOODBYE_S)
            self._past = _added(self._past, replace(self._stats, num_running=0, num_waiting=0))
            self._stats = Stats(kv_budget_bytes=self._stats.kv_budget_bytes)
            if not self._stopping:
                self._why = f"the worker ended with code {code}; a new one is starting"
            self._fail_open(code)

    def _spawn(self) -> WorkerProcess:
        context, is_first = self._context, self._capabilities is None
        self._why = "the worker is loading its model"
        # The first worker must have them all. A later one may do without one whose folder is gone.
        self._opened_with = dict(self._section.adapters) if is_first else {}
        process = worker(self._opener)
        process.open((
            "open", values_of(self._section) | {"adapters": self._opened_with}, str(context.cache_dir),
            str(context.home), context.hub_endpoint, {} if is_first else self._adapters,
        ))  # fmt: skip
        return process

    async def _connect(self) -> asyncio.StreamReader:
        assert self._process is not None
        self._last_beat = self._last_ready = time.monotonic()
        reader, self._writer = await self._process.connect()
        return reader

    async def _end(self, grace_s: float = 0.0) -> int:
        """End the worker, if there is one."""
        process, self._process = self._process, None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        return 0 if process is None else await process.end(grace_s)

    async def _watch(self) -> None:
        """Kill a worker that has not been ready for too long; its end does the rest."""
        while True:
            await asyncio.sleep(min(1.0, self._kill_after_s / 4))
            now = time.monotonic()
            if not self._is_up or self._stopping or self.health().ready:
                self._last_ready = now
            elif now - self._last_ready > self._kill_after_s and self._process is not None:
                _log.error("the worker hangs (%s) and is killed", self.health().reason)
                self._process.kill()
                return

    def _fail_open(self, code: int) -> None:
        reason = "the engine was stopped" if self._stopping else f"the engine's process ended (code {code})"
        kind = EngineFailure if self._stopping else EngineDied
        error = kind(reason, hint="send the request again", retry_after_s=1.0)
        for stream in self._streams.values():
            stream.fail(error)
        self._streams.clear()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(error)
        self._calls.clear()
        self._rows.clear()

    # -- messages ------------------------------------------------------------------------------------

    def _on_ready(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._health = Health(alive=True, ready=True)
        self._last_beat = self._last_ready = time.monotonic()
        self._is_up = True

    def _on_can(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities

    def _on_beat(self, stats: Stats, health: Health) -> None:
        self._stats, self._health, self._last_beat = stats, health, time.monotonic()

    def _on_events(self, batch: list[tuple[int, list[Event]]]) -> None:
        for number, events in batch:
            stream = self._streams.get(number)
            if stream is None:
                continue
            if any(isinstance(event, Started) for event in events):
                self._admission.started(stream.ticket)
            if isinstance(events[-1], Done | Failed):
                del self._streams[number]
                self._admission.left(stream.ticket)
            stream.queue.put_nowait(events)

    def _on_refused(self, number: int, error: TemperError) -> None:
        if stream := self._streams.pop(number, None):
            stream.queue.put_nowait(error)

    def _on_result(self, number: int, value: Any) -> None:
        rows = self._rows.pop(number, None)
        if (call := self._calls.pop(number, None)) and not call.done():
            call.set_result(value if rows is None else rows)

    def _on_raised(self, number: int, error: TemperError) -> None:
        self._rows.pop(number, None)
        if (call := self._calls.pop(number, None)) and not call.done():
            call.set_exception(error)

    def _on_rows(self, number: int, name: str, start: int, rows: Any, total: int) -> None:
        if number not in self._calls:
            return
        import numpy as np  # only where arrays travel

        arrays = self._rows.setdefault(number, {})
        if name not in arrays:
            arrays[name] = np.empty((total, *rows.shape[1:]), dtype=rows.dtype)
        arrays[name][start : start + len(rows)] = rows

    # -- inside --------------------------------------------------------------------------------------

    def _check_up(self) -> None:
        if self._stopping or not self._is_up:
            raise Draining(f"the engine takes no requests now: {self._why}", retry_after_s=1.0)

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self._check_up()
        number = next(self._ids)
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            self._send("call", number, method, args, kwargs)
            return await answer
        finally:
            self._calls.pop(number, None)

    def _send(self, *message: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.encode(message))


def _added(past: Stats, now: Stats) -> Stats:
    """`now` with the totals of earlier workers on top."""
    totals: dict[str, Any] = {
        f.name: getattr(past, f.name) + getattr(now, f.name) for f in fields(Stats) if f.name.endswith("_total")
    }
    return replace(now, kv_peak_bytes=max(past.kv_peak_bytes, now.kv_peak_bytes), **totals)
