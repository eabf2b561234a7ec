"""What one server holds: its engines by name, its figures, and how many requests are open."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from starlette.requests import HTTPConnection

from temper.engines.base import Capabilities, Engine, Health, Stats
from temper.engines.swap import Swappable
from temper.errors import Draining, Invalid, TemperError
from temper.profile.schema import Profile
from temper.server.errors import ModelNotFound
from temper.server.settings import ServerSettings
from temper.telemetry import Telemetry

log = logging.getLogger(__name__)

DEFAULT = "default"
"""Names the first model, whatever it is called."""


class Served:
    """The engines behind one app. `engines` may be swapped while serving; open requests keep theirs."""

    def __init__(self, engines: Mapping[str, Engine] | Engine, settings: ServerSettings) -> None:
        self.settings = settings
        self._given = engines
        self.engines: dict[str, Engine] = {} if isinstance(engines, Engine) else dict(engines)
        self.telemetry = Telemetry(self.stats)
        self.created = int(time.time())
        self.draining = False
        self.num_open = 0
        self.failure: Exception | None = None
        """Why the engines could not start."""
        self.given_up = False
        """Told to end before they had started."""
        self._starting: asyncio.Future[list[None]] | None = None
        self._traced_from_s: float | None = None
        """This process's CPU time when the trace began that is going on."""
        self.reread: Callable[[], Profile] | None = None
        """Reads the profile that is served once more, where it came from a file or a preset."""

    async def start(self) -> None:
        """Start every engine; a single one is served under the name that it gives itself.

        Raises:
            Draining: `give_up` was called; what had been started is ended.
        """
        engines = [self._given] if isinstance(self._given, Engine) else self.distinct()
        self._starting = starting = asyncio.gather(*(engine.start() for engine in engines))
        try:
            await starting
        except asyncio.CancelledError:
            if not self.given_up:
                raise
            await asyncio.gather(*(engine.stop() for engine in engines), return_exceptions=True)
            raise Draining("told to end before the engines had started") from None
        self.rename()

    def give_up(self) -> None:
        """Let `start` end what it has started, instead of waiting for it."""
        self.given_up = self.draining = True
        if self._starting is not None:
            self._starting.cancel()

    @property
    def root(self) -> Swappable | None:
        """The engine whose tree may change, where there is one."""
        return self._given if isinstance(self._given, Swappable) else None

    def rename(self) -> None:
        """Serve a single engine under the name that it gives itself now."""
        if isinstance(self._given, Engine):
            self.engines = {self._given.capabilities().model: self._given}

    async def reload(self) -> None:
        """Read the profile again and serve what it says now; when that cannot be, say so and go on."""
        if self.root is None or self.reread is None:
            log.warning("there is no profile file to read again")
            return
        try:
            changed = await self.root.change(self.reread())
        except TemperError as error:
            log.error("the profile was not taken over: %s", error)
            return
        self.rename()
        log.warning("profile read again: %s, %d fields differ", changed.how, len(changed.fields))

    async def stop(self, drain_s: float = 0.0) -> None:
        """Stop every engine."""
        self.draining = True
        await asyncio.gather(*(engine.stop(drain_s) for engine in self.distinct()), return_exceptions=True)

    def distinct(self) -> list[Engine]:
        """Each engine once, though it may have several names."""
        return list({id(engine): engine for engine in self.engines.values()}.values())

    def find(self, model: str | None) -> tuple[str, Engine, str | None]:
        """(name to report, engine, adapter) for the model that a request names; None: the first one.

        Raises:
            ModelNotFound: nothing of this name is served.
            Draining: the server takes nothing new.
        """
        if self.draining or not self.engines:
            raise Draining("the server is shutting down", retry_after_s=5.0)
        first = next(iter(self.engines))
        if model is None:
            return first, self.engines[first], None
        if model in self.engines:
            return model, self.engines[model], None
        for engine in self.engines.values():
            if model in engine.capabilities().adapters:
                return model, engine, model
        if model == DEFAULT:
            return first, self.engines[first], None
        raise ModelNotFound(
            f"the model '{model}' is not served here", param="model", hint=f"served: {', '.join(self.engines)}"
        )

    def fingerprint(self, model: str, engine: Engine) -> str:
        """Changes when answers may: with the model or the way it is computed."""
        return _fingerprint(model, engine.name, engine.capabilities())

    def stats(self) -> dict[str, Stats]:
        """Figures of each engine by its first name; for telemetry."""
        seen: dict[int, str] = {}
        for name, engine in self.engines.items():
            seen.setdefault(id(engine), name)
        return {name: self.engines[name].stats() for name in seen.values()}

    def health(self) -> dict[str, Health]:
        """Health by model name."""
        return {name: engine.health() for name, engine in self.engines.items()}

    async def start_trace(self) -> None:
        """Have every engine that can measure where its time goes, and measure our own."""
        for engine in self.distinct():
            if engine.capabilities().trace:
                await engine.start_trace()
        self._traced_from_s = time.process_time()

    async def stop_trace(self) -> dict[str, Any]:
        """`http_cpu_s`, and by model name the engine's `trace`, null with a `reason` where it tells none.

        Raises:
            Invalid: nothing was begun.
        """
        if self._traced_from_s is None:
            raise Invalid("there is no trace to end", param="on", hint='begin one with {"on": true}')
        found: dict[str, Any] = {"http_cpu_s": time.process_time() - self._traced_from_s, "models": {}}
        self._traced_from_s = None
        for name, engine in self.engines.items():
            reason = f"engine '{engine.name}' does not tell where its own time goes"
            can = engine.capabilities().trace
            trace = asdict(await engine.stop_trace()) if can else None
            found["models"][name] = {"trace": trace, "reason": "" if can else reason}
        return found

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A request is open while this lasts; draining waits for it."""
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1

    async def drained(self, within_s: float, poll_s: float = 0.02) -> bool:
        """Take nothing new and wait until no request is open; False when time ran out first."""
        self.draining = True
        end = time.monotonic() + within_s
        while self.num_open and time.monotonic() < end:
            await asyncio.sleep(poll_s)
        return not self.num_open


def served(connection: HTTPConnection) -> Served:
    """The state of the app that this request came to; for routes, those of extensions included."""
    state: Served = connection.app.state.temper
    return state


@lru_cache(64)
def _fingerprint(model: str, name: str, can: Capabilities) -> str:
    """Asked for by every request, and almost always the same."""
    return "fp_" + hashlib.sha256(f"{model}/{name}/{can}".encode()).hexdigest()[:12]
