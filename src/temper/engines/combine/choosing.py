"""Sending a request to one child, and to another one while nothing has been said.

The loop that `balance` and `route` share. They say who is next and learn how it went; that a client never sees half an
answer twice, and never loses one that another child could give, is decided here.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from temper.engines.combine.combinator import Child, Combinator, remaining, soonest
from temper.engines.combine.figures import check
from temper.engines.combine.patience import events
from temper.errors import Draining, Invalid, Rejected, TemperError
from temper.types import Accepted, Delta, Done, Event, Failed, Finished, Request, Started, ToolDelta, Usage


class Attempt:
    """One try of a request at one child. Subclasses keep what they want to know."""

    __slots__ = ("child", "request")

    def __init__(self, child: Child, request: Request) -> None:
        self.child = child
        self.request = request

    def started(self, event: Started) -> None:
        """Work began."""

    def spoke(self) -> None:
        """The first text came."""

    def said(self, event: Delta) -> None:
        """Text came. In the path of every token: keep it short."""

    def ended(self, usage: Usage | None, error: TemperError | None) -> None:
        """It is over: whole (usage), broken (error), or given up by the caller (neither). Called exactly once."""


class Chooser(Combinator):
    """A combinator that gives each request to one child."""

    needs_all = False
    retries: int
    silence_s: float | None

    @abstractmethod
    def _choose(self, request: Request, tried: Sequence[str]) -> Child | None:
        """Who shall answer, never one of `tried`; None when nobody is left."""

    @abstractmethod
    def _attempt(self, child: Child, request: Request) -> Attempt:
        """Begin a try."""

    @abstractmethod
    def _nobody(self) -> Draining:
        """Why nobody can be chosen."""

    def _given(self, request: Request) -> Request:
        """`request` with what this engine adds to it."""
        return request

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """The events of whichever child answers."""
        self._check_open()
        request = self._given(request)
        check(request, self.capabilities(), self.name)
        loop = asyncio.get_running_loop()
        began = loop.time()
        tried: list[str] = []
        refusals: list[Rejected] = []
        failure: TemperError | None = None
        accepted = False
        while len(tried) <= self.retries:
            child = self._choose(request, tried)
            if child is None:
                break
            tried.append(child.name)
            failure = None
            try:
                asked = remaining(request, began, loop.time())
            except TemperError as error:
                failure = error
                break
            attempt = self._attempt(child, asked)
            usage: Usage | None = None
            spoken = False
            start: Started | None = None
            try:
                async with aclosing(events(child.engine, asked, self.silence_s)) as stream:
                    async for event in stream:
                        kind = type(event)
                        if kind is Delta or kind is Finished or kind is ToolDelta:
                            if not spoken:
                                spoken = True
                                attempt.spoke()
                                if start is not None:
                                    yield start
                            if kind is Delta:
                                attempt.said(event)  # type: ignore[arg-type]
                            yield event
                        elif isinstance(event, Started):
                            start = event  # held back: another child may count the prompt otherwise
                            attempt.started(event)
                        elif isinstance(event, Accepted):
                            if not accepted:
                                accepted = True
                                yield event
                        elif isinstance(event, Done):
                            usage = event.usage
                            if not spoken and start is not None:
                                yield start
                            yield self._signed(event, child)
                            return
                        elif isinstance(event, Failed):
                            failure = event.error
            except Rejected as error:
                failure = error
                refusals.append(error)
            except Invalid as error:
                if not accepted:
                    raise
                failure = error
            finally:
                attempt.ended(usage, failure)
            if spoken or not (failure is not None and failure.retryable):
                break
        if not accepted and (failure is None or isinstance(failure, Rejected)):
            raise soonest(refusals) if refusals else self._nobody()
        if not accepted:
            yield Accepted()
        yield Failed(failure or self._nobody())
