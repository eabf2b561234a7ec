"""A server of another make as an Engine: launched, watched, restarted, and spoken to through the `openai` engine.

It knows what a process is and when a server is well; what the server says is the `openai` engine's business, and
what its command means `profile.command_line`'s. Nothing is started by a shell, and nothing listens on another
address than loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import fields, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from temper.engines.base import Capabilities, Engine, Health, Stats
from temper.engines.kinds import Context
from temper.engines.openai import Endpoint, OpenAIEngine
from temper.engines.openai.wire import Wire, WireError
from temper.engines.process.backoff import Backoff
from temper.engines.process.journal import Journal
from temper.engines.process.launch import Launched, allowed, free_port, group_members, launch, pss_bytes
from temper.errors import Draining, EngineDied, EngineFailure, TemperError
from temper.profile import command_line, schema
from temper.profile.process import ProcessEngine as Section
from temper.types import Event, Message, Request

if TYPE_CHECKING:
    from temper.engines.base import Scores

log = logging.getLogger(__name__)

POLL_S = 0.1
"""Between two looks at a server that is not ready yet."""
LOOK_S = 2.0
"""Between two looks at one that is."""
WEIGH_S = 10.0
"""Between two looks at its memory, which hold the server up for some milliseconds."""
PORT_ATTEMPTS = 3
SHOWN_LINES = 10
_PORT_TAKEN = ("address already in use", "couldn't bind", "could not bind", "eaddrinuse", "port is already")


class ProcessEngine(Engine):
    """A launched server. One event loop at a time: the one that called `start`."""

    name = "process"

    def __init__(
        self,
        section: Section,
        context: Context,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
        pick_port: Callable[[], int] = free_port,
        look_s: float = LOOK_S,
        weigh_s: float = WEIGH_S,
    ) -> None:
        """`sleep` and `now` time the restarts; a server is looked at every `look_s`, and weighed every `weigh_s`."""
        self._section = section
        self._context = context
        self._sleep, self._now, self._pick_port = sleep, now, pick_port
        self._look_s, self._weigh_s = look_s, weigh_s
        self._inner: OpenAIEngine | None = None
        self._launched: Launched | None = None
        self._journal: Journal | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._backoff = Backoff(section.first_backoff_s, section.max_restarts)
        self._capabilities: Capabilities | None = None
        self._past = Stats()
        self._state = "not started"
        self._answering = False
        self._ready = self._stopping = self._gave_up = False
        self._num_starts = self._pss_bytes = self._pss_peak_bytes = 0
        self._ready_after_s: float | None = None

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Launch the server and return when it takes requests.

        Raises:
            EngineDied: it ended, or there is no such program; the last lines that it wrote are in the message.
            EngineFailure: it was not ready in time.
        """
        self._stopping = self._gave_up = False
        self._backoff = Backoff(self._section.first_backoff_s, self._section.max_restarts)
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(up))
        try:
            await asyncio.shield(up)
        except TemperError:
            await asyncio.wait({self._supervisor})  # what was started has ended when we return
            raise
        except BaseException:
            await self._end_supervisor()
            raise

    async def stop(self, drain_s: float = 0.0) -> None:
        """Take nothing new, let open streams end for `drain_s` seconds, then end the server."""
        self._stopping = True
        self._state = "stopping"
        if self._inner is not None:
            await self._inner.stop(drain_s)
        await self._end_supervisor()
        self._state = "stopped"

    async def _end_supervisor(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None

    def health(self) -> Health:
        """Ready while the server answers; alive unless it was given up."""
        ready = self._ready and self._answering and not self._stopping
        return Health(alive=not self._gave_up, ready=ready, reason="" if ready else self._state)

    def capabilities(self) -> Capabilities:
        """What the server tells and its kind is known to offer."""
        if self._capabilities is None:
            raise Draining("the engine is not started", retry_after_s=1.0)
        return self._capabilities

    def stats(self) -> Stats:
        """Counts of our requests over all starts; memory, starts and log of the process in `details`."""
        now = self._inner.stats() if self._inner is not None else Stats()
        launched = self._launched
        return replace(
            now,
            prompt_tokens_total=now.prompt_tokens_total + self._past.prompt_tokens_total,
            generation_tokens_total=now.generation_tokens_total + self._past.generation_tokens_total,
            prefix_queries_total=now.prefix_queries_total + self._past.prefix_queries_total,
            prefix_hits_total=now.prefix_hits_total + self._past.prefix_hits_total,
            details={
                **now.details,
                "server": self._section.server,
                "pid": launched.pid if launched is not None else None,
                "pss_bytes": self._pss_bytes,
                "pss_peak_bytes": self._pss_peak_bytes,
                "starts_total": self._num_starts,
                "ready_after_s": self._ready_after_s,
                "log_file": str(self._journal.path) if self._journal is not None else None,
            },
        )

    def last_lines(self, count: int = SHOWN_LINES) -> list[str]:
        """What the server wrote last."""
        return self._journal.last(count) if self._journal is not None else []

    # -- requests --------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        """Stream the server's answer; see the seam for the order of events."""
        inner = self._up()
        stream = inner.generate(request)
        try:
            async for event in stream:
                yield event
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def tokenize(self, text: str | Sequence[Message], *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text, where the server tells."""
        return await self._up().tokenize(text, add_special_tokens=add_special_tokens)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of ids, where the server tells."""
        return await self._up().detokenize(token_ids)

    async def count_tokens(self, request: Request) -> int:
        """Length of the prompt, as the server counts."""
        return await self._up().count_tokens(request)

    async def score(self, tokens: Sequence[int], top_k: int | None = None) -> Scores:
        """Log-probabilities, where the server can give them."""
        return await self._up().score(tokens, top_k)

    async def apply(self, profile: schema.Profile) -> bool:
        """True when nothing changes that the server would have to be launched again for."""
        return profile.engine == self._section

    def _up(self) -> OpenAIEngine:
        if self._gave_up:
            raise Draining(self._state, hint="fix the server and start again")
        if not self._ready or self._stopping or self._inner is None:
            raise Draining(f"the server is not ready: {self._state}", retry_after_s=1.0)
        return self._inner

    # -- the process -----------------------------------------------------------------------------------

    async def _supervise(self, up: asyncio.Future[None]) -> None:
        """Keep a server running until told to stop; the first start answers for `start`."""
        port_attempts = 1
        while True:
            began = self._now()
            ready_at: float | None = None
            try:
                self._state = "starting"
                await self._launch()
                ready_at = self._now()
                self._ready_after_s = ready_at - began
                if not up.done():
                    up.set_result(None)
                self._state = await self._watch()
            except (TemperError, OSError) as error:
                self._state = str(error)
                if not up.done() and self._port_was_taken() and port_attempts < PORT_ATTEMPTS:
                    port_attempts += 1
                    continue
                if not up.done():
                    up.set_exception(error)
                    return
            finally:
                await self._end()
            pause_s = self._backoff.pause_s(0.0 if ready_at is None else self._now() - ready_at)
            if pause_s is None:
                self._gave_up = True
                self._state = f"given up after {self._backoff.count} restarts: {self._state}"
                log.error("%s: %s", self._title, self._state)
                return
            log.error("%s: %s; starting again in %.1f s", self._title, self._state, pause_s)
            self._state = f"{self._state}; starting again"
            await self._sleep(pause_s)

    @property
    def _title(self) -> str:
        return PurePath(self._section.command[0]).name

    async def _launch(self) -> None:
        """One start, up to the first answer."""
        section, context = self._section, self._context
        port = self._pick_port()
        environment = allowed(context.environ, section.pass_environment, section.environment)
        made = secrets.token_urlsafe(24) if any("{api_key" in word for word in section.command) else None
        key = made or environment.get(type(section.flags).key_variable)
        words = command_line.render(
            section, port=port, host=command_line.LOOPBACK, model=await self._fetch(), api_key=key
        )
        self._num_starts += 1
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = context.home / "logs" / "process" / f"{stamp}-{self._title}-{port}-{self._num_starts}.log"
        self._journal = Journal(path)
        self._launched = await launch(words, environment, self._journal, section.stop_grace_s, self._log_line)
        await self._first_answer(f"http://{command_line.LOOPBACK}:{port}")
        inner = OpenAIEngine(
            schema.OpenAIEngine(
                model=None,
                dialect=_DIALECTS[section.server],
                silence_s=section.silence_s,
                health_every_s=None,
            ),
            endpoint=Endpoint(f"http://{command_line.LOOPBACK}:{port}", key),
        )
        inner.name = self.name
        await inner.start()
        self._inner = inner
        self._capabilities = inner.capabilities()
        self._ready = self._answering = True

    async def _fetch(self) -> str | None:
        """Where the checkpoint lies, fetched if need be."""
        if self._section.checkpoint is None:
            return None
        from temper.models import sources

        context = self._context
        found = await asyncio.to_thread(
            sources.fetch, self._section.checkpoint, context.cache_dir, None, context.hub_endpoint
        )
        return str(found.path)

    @property
    def _ready_path(self) -> str:
        return self._section.ready_path or type(self._section.flags).ready_path

    async def _first_answer(self, url: str) -> None:
        """Until the server takes requests.

        Raises:
            EngineDied: it ended before.
            EngineFailure: it takes too long.
        """
        launched = self._launched
        assert launched is not None
        self._wire = Wire(url, connect_timeout_s=2.0)
        ended = asyncio.create_task(launched.wait())
        loop = asyncio.get_running_loop()
        end = loop.time() + self._section.start_timeout_s
        answer = "no connection"
        try:
            while True:
                if ended.done():
                    raise EngineDied(
                        self._message(f"the server ended with {_ending(ended.result())} before it was ready")
                    )
                answer = await self._ask(5.0)
                if answer == "200" and not ended.done():
                    return
                if loop.time() >= end:
                    raise EngineFailure(
                        self._message(
                            f"the server was not ready within {self._section.start_timeout_s:g} s "
                            f"({self._ready_path}: {answer})"
                        )
                    )
                await asyncio.wait({ended}, timeout=min(POLL_S, max(0.0, end - loop.time())))
        finally:
            ended.cancel()

    async def _ask(self, patience_s: float) -> str:
        """What the ready path answers now: a status, or why there is none."""
        try:
            async with asyncio.timeout(patience_s):
                async with await self._wire.send("GET", f"/{self._ready_path}", silence_s=patience_s) as response:
                    await response.read()
                    return str(response.status)
        except TimeoutError:
            return f"no answer within {patience_s:g} s"
        except WireError as error:
            return str(error)

    async def _watch(self) -> str:
        """Until the server is gone or hangs; returns which."""
        launched = self._launched
        assert launched is not None
        ended = asyncio.create_task(launched.wait())
        well_at = weigh_at = self._now()
        hang_s = self._section.hang_s
        patience_s = 10.0 if hang_s is None else min(10.0, hang_s)
        try:
            while True:
                await asyncio.wait({ended}, timeout=self._look_s)
                if ended.done():
                    return self._message(f"the server ended with {_ending(ended.result())}")
                answer = await self._ask(patience_s)
                if self._now() >= weigh_at:
                    await self._weigh(launched)
                    weigh_at = self._now() + self._weigh_s
                self._answering = answer == "200"
                if self._answering:
                    well_at = self._now()
                    self._state = "running"
                    continue
                self._state = f"{self._ready_path}: {answer}"
                if not ended.done() and hang_s is not None and self._now() - well_at >= hang_s:
                    launched.kill()
                    return self._message(f"the server hung for {hang_s:g} s and was killed ({self._state})")
        finally:
            ended.cancel()

    async def _weigh(self, launched: Launched) -> None:
        self._pss_bytes = await asyncio.to_thread(lambda: pss_bytes(group_members(launched.pid)))
        self._pss_peak_bytes = max(self._pss_peak_bytes, self._pss_bytes)

    async def _end(self) -> None:
        """Whatever is left of this start: open streams fail, the group is ended, counts are kept."""
        was_ready, self._ready, self._answering = self._ready, False, False
        inner, self._inner = self._inner, None
        launched, self._launched = self._launched, None
        self._pss_bytes = 0
        if inner is not None:
            gone = inner.stats()
            self._past = _added(self._past, gone)
            await inner.stop()
        if launched is not None:
            # One that was never ready has nothing to finish, and may be deaf while it loads.
            await asyncio.shield(launched.end(self._section.stop_grace_s if was_ready else 0.0))
        if self._journal is not None:
            self._journal.close()

    def _log_line(self, line: str) -> None:
        log.info("%s: %s", self._title, line)

    def _port_was_taken(self) -> bool:
        written = "\n".join(self.last_lines(50)).lower()
        return any(sign in written for sign in _PORT_TAKEN)

    def _message(self, what: str) -> str:
        """What happened, and what the server said last."""
        lines = self.last_lines()
        said = "it wrote nothing" if not lines else "it wrote last:\n  " + "\n  ".join(lines)
        where = f"\n(all of it: {self._journal.path})" if self._journal is not None and lines else ""
        return f"{what}; {said}{where}"


_DIALECTS: dict[str, schema.Dialect] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llama-server": "llama-server",
    "other": "auto",
}


def _ending(code: int) -> str:
    return f"code {code}" if code <= 128 else f"code {code} (signal {code - 128})"


def _added(past: Stats, now: Stats) -> Stats:
    """The totals of two lives."""
    names = [item.name for item in fields(Stats) if item.name.endswith("_total")]
    return replace(past, **{name: getattr(past, name) + getattr(now, name) for name in names})
