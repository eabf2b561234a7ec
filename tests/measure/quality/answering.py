"""An engine for tests of quality: answers each question by a function of the request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from temper.engines.base import Capabilities, Engine, Health, Stats
from temper.errors import TemperError
from temper.types import Accepted, Delta, Done, Event, Finished, FinishReason, Request, Started, Usage

Says = str | TemperError | tuple[str, FinishReason]


class AnsweringEngine(Engine):
    name = "answering"

    def __init__(self, says: Callable[[Request], Says], model: str = "made-up") -> None:
        self._says, self._model = says, model
        self.seen: list[Request] = []

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.seen.append(request)
        said = self._says(request)
        if isinstance(said, TemperError):
            raise said
        text, reason = said if isinstance(said, tuple) else (said, "stop")
        yield Accepted()
        yield Started(10)
        for index in range(request.n):
            yield Delta(index, text, tuple(range(len(text.split()))))
            yield Finished(index, reason)
        yield Done(Usage(10, 0, len(text.split())))

    async def start(self) -> None: ...

    async def stop(self, drain_s: float = 0.0) -> None: ...

    def health(self) -> Health:
        return Health(True, True)

    def capabilities(self) -> Capabilities:
        return Capabilities(self._model, max_n=8)

    def stats(self) -> Stats:
        return Stats()


def asked(request: Request) -> str:
    assert request.messages is not None
    return request.messages[-1].content or ""
