"""One HTTP request's work on an engine: opening streams, watching them, and letting go when nobody listens.

Whatever ends a call (its own end, an error, a client that left, the server's shutdown), the engine's
iterator is closed, so that the work is cancelled and all it held is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar, cast

from starlette.types import Receive

from temper.engines.base import Engine
from temper.errors import EngineFailure, TemperError
from temper.server.spans import RequestSpan
from temper.server.state import Served
from temper.types import Accepted, CacheState, Delta, Done, Event, Failed, Request

Result = TypeVar("Result")
Tagged = tuple[int, Event]
"""(number of the request within the call, event)."""

MERGE_BUFFER = 64
"""Events of several streams that wait to be written before the engines are held back."""


class ClientLeft(Exception):
    """Nobody listens any more."""


@dataclass(frozen=True, slots=True)
class Call:
    """One or more requests that one HTTP request makes of an engine."""

    served: Served
    model: str
    engine: Engine
    requests: Sequence[Request]
    span: RequestSpan | None = None
    """Where spans are wanted: the one of the HTTP request."""
    cache_states: list[CacheState] = field(default_factory=list)
    """What the response cache did with each request, where there is one; filled in as they are accepted."""

    @property
    def headers(self) -> dict[str, str]:
        """What is known of the answer when it begins."""
        if not self.cache_states:
            return {}
        state = next((state for state in ("miss", "bypass") if state in self.cache_states), "hit")
        return {"x-cache": state.upper()}

    def events(self) -> AsyncGenerator[Tagged, None]:
        """The events of all requests as they come.

        Raises:
            TemperError: the first one that any request met, also when its stream said `Failed`.
        """
        return _one(self, 0) if len(self.requests) == 1 else _several(self)


async def _one(call: Call, number: int) -> AsyncGenerator[Tagged, None]:
    observer = call.served.telemetry.observer(call.model)
    watch = None if call.span is None else call.span.watch()
    stream = cast(AsyncGenerator[Event, None], call.engine.generate(call.requests[number]))
    is_complete = False
    try:
        async with aclosing(stream):
            async for event in stream:
                observer.see(event)
                if watch is not None and type(event) is not Delta:
                    watch.see(event)
                kind = type(event)
                if kind is Failed:
                    raise event.error  # type: ignore[union-attr]
                if kind is Done:
                    is_complete = True
                elif kind is Accepted and event.cache is not None:  # type: ignore[union-attr]
                    call.cache_states.append(event.cache)  # type: ignore[union-attr]
                yield number, event
        if not is_complete:
            raise EngineFailure("the engine's stream ended before the answer was complete")
    except TemperError as error:
        observer.fail(error.code)
        if watch is not None:
            watch.refused(error)
        raise
    except Exception:
        observer.fail("internal_error")
        raise
    finally:
        observer.close()


async def _several(call: Call) -> AsyncGenerator[Tagged, None]:
    """All streams at once, merged in the order in which events come."""
    queue: asyncio.Queue[Tagged | Exception | None] = asyncio.Queue(MERGE_BUFFER)

    async def pump(number: int) -> None:
        try:
            async with aclosing(_one(call, number)) as stream:
                async for tagged in stream:
                    await queue.put(tagged)
            await queue.put(None)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.create_task(pump(number)) for number in range(len(call.requests))]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        await _cancel(*tasks)


async def while_connected(receive: Receive, work: Coroutine[None, None, Result]) -> Result:
    """Run `work` to its end, or cancel it when the client leaves. The body must have been read.

    Raises:
        ClientLeft: the client left first.
    """
    here = asyncio.current_task()
    assert here is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        here.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work  # in this task: one of its own would cost every request a switch
    except asyncio.CancelledError:
        if left and here.uncancel() == 0:  # else somebody beside the client wants it to end
            raise ClientLeft from None
        raise
    finally:
        watching.cancel()


async def _cancel(*tasks: asyncio.Task[Result] | asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
