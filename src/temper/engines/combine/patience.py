"""Reading a child's stream without waiting for ever, and with its rules enforced.

One timer a request, not one an event: a stream that gives nothing for too long is broken off, one that ends without
`Done` or `Failed` is called what it is. It knows nothing of who asks or why.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from temper.engines.base import Engine
from temper.errors import EngineDied, EngineFailure, Invalid, Rejected, TemperError
from temper.types import Accepted, Done, Event, Failed, Request


class _Silence:
    """Cancels the task that waits for an event once nothing has come for `limit_s`."""

    __slots__ = ("_limit_s", "_loop", "_timer", "expired", "heard", "task")

    def __init__(self, limit_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s = limit_s
        self.heard = self._loop.time()
        self.task: asyncio.Task[object] | None = None
        """Who waits just now; None between two events, when the slowness is not the engine's."""
        self.expired = False
        self._timer = self._loop.call_later(limit_s, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        due = self.heard + self._limit_s
        if self.task is None:
            due = now + self._limit_s
        if now < due:
            self._timer = self._loop.call_at(due, self._look)
            return
        self.expired = True
        self.task.cancel()  # type: ignore[union-attr]

    def close(self) -> None:
        self._timer.cancel()


async def events(engine: Engine, request: Request, silence_s: float | None = None) -> AsyncGenerator[Event, None]:
    """The events of `request`, always ended by `Done` or `Failed`. Closing it closes the engine's stream.

    An engine that breaks before its first event, though it may only refuse there, gets an `Accepted` put before its
    `Failed`.

    Raises:
        Invalid, Rejected: as the engine does, before its first event.
    """
    stream = cast(AsyncGenerator[Event, None], engine.generate(request))
    silence = None if silence_s is None else _Silence(silence_s)
    loop = asyncio.get_running_loop()
    begun = False
    try:
        async with aclosing(stream):
            while True:
                try:
                    if silence is not None:
                        silence.heard = loop.time()
                        silence.task = asyncio.current_task()
                    event = await anext(stream)
                except StopAsyncIteration:
                    failure: TemperError = EngineDied(
                        f"the stream of '{engine.name}' ended before the answer was complete"
                    )
                except asyncio.CancelledError:
                    if silence is None or not silence.expired:
                        raise
                    assert silence.task is not None
                    if silence.task.uncancel() > 0:  # somebody else wants us to end too
                        raise
                    failure = EngineFailure(f"'{engine.name}' sent nothing for {silence_s:g} s")
                except (Invalid, Rejected) as error:
                    if not begun:
                        raise
                    failure = error
                except TemperError as error:
                    failure = error
                except Exception as error:  # a fault in an engine's code is that engine's failure
                    failure = EngineFailure(f"'{engine.name}' broke: {type(error).__name__}: {error}")
                else:
                    if silence is not None:
                        silence.task = None
                    begun = True
                    yield event
                    if type(event) is Done or type(event) is Failed:
                        return
                    continue
                if not begun:
                    yield Accepted()
                yield Failed(failure)
                return
    finally:
        if silence is not None:
            silence.close()
