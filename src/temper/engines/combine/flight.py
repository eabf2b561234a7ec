"""One computation that several callers listen to: single flight.

The work goes on while anybody listens and is cancelled when nobody does. Each listener gets every event from the
first, and has a deadline of its own. It knows nothing of keys or of what is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from temper.engines.base import Engine
from temper.engines.combine.patience import events
from temper.errors import DeadlineExceeded, EngineFailure, TemperError
from temper.types import Accepted, Done, Event, Failed, Request


class Flight:
    """A request under way."""

    def __init__(self, engine: Engine, request: Request, land: Callable[[Flight], None]) -> None:
        """Begins at once. `land` is called when it is over or given up, before the listeners learn of it."""
        self.events: list[Event] = []
        self._refusal: TemperError | None = None
        self._is_over = False
        self._land = land
        self._num_listeners = 0
        self._more = asyncio.Event()
        # A deadline is one caller's; the flight may have others.
        self._task = asyncio.create_task(self._fly(engine, replace(request, deadline_s=None)))

    async def _fly(self, engine: Engine, request: Request) -> None:
        try:
            async with aclosing(events(engine, request)) as stream:
                async for event in stream:
                    self.events.append(event)
                    self._tell()
        except TemperError as error:
            self._refusal = error
        finally:
            self._is_over = True
            self._land(self)
            self._tell()

    def _tell(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def listen(self, deadline_s: float | None) -> AsyncGenerator[Event, None]:
        """Every event, from the first.

        Raises:
            Invalid, Rejected: the request was refused.
        """
        loop = asyncio.get_running_loop()
        until = None if deadline_s is None else loop.time() + deadline_s
        self._num_listeners += 1
        at = 0
        try:
            while True:
                while at < len(self.events):
                    event = self.events[at]
                    at += 1
                    yield event
                    if isinstance(event, Done | Failed):
                        return
                if self._refusal is not None:
                    raise self._refusal
                if self._is_over:
                    yield Failed(EngineFailure("the work was cancelled before the answer was complete"))
                    return
                try:
                    async with asyncio.timeout_at(until):
                        await self._more.wait()
                except TimeoutError:
                    if not at:
                        yield Accepted()
                    late = DeadlineExceeded(f"the answer was not complete within {deadline_s} s", param="deadline_s")
                    yield Failed(late)
                    return
        finally:
            self._num_listeners -= 1
            if not self._num_listeners and not self._is_over:
                self._land(self)  # at once: who asks the same now must not join what is being cancelled
                await self.close()

    async def close(self) -> None:
        """End the work now; listeners get a `Failed`."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
