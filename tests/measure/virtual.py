"""Time that passes only when everybody waits: asyncio without waiting, exact to the last digit."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from temper.engines.base import Capabilities, Engine, Health, Stats
from temper.errors import TemperError
from temper.types import Accepted, Delta, Done, Event, Failed, Finished, Request, Started, Usage


class _Selector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits and nothing is scheduled: a deadlock"
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class PacedEngine(Engine):
    """First token after `ttft_s`, one every `itl_s`; all stand still from `stall_at_s` for `stall_s`."""

    name = "paced"

    def __init__(self, ttft_s: float, itl_s: float, *, stall_at_s: float = 0.0, stall_s: float = 0.0) -> None:
        self.ttft_s, self.itl_s = ttft_s, itl_s
        self.stall = (stall_at_s, stall_at_s + stall_s)
        self.seen: list[tuple[float, Request]] = []
        self.most_at_once = self._at_once = 0
        self.refuse: TemperError | None = None
        self.break_after: int | None = None

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        begin, until = self.stall
        if loop.time() < until and end > begin:
            end = until + max(0.0, end - max(begin, loop.time()))
        await asyncio.sleep(end - loop.time())

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.seen.append((asyncio.get_running_loop().time(), request))
        if self.refuse is not None:
            raise self.refuse
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield Accepted()
            num_prompt = len(request.prompt or ())
            yield Started(num_prompt)
            yield Delta(0, "", (), channel="answer")  # an empty piece is no first token
            for position in range(request.limits.max_tokens or 16):
                if position == self.break_after:
                    from temper.errors import EngineDied

                    yield Failed(EngineDied("gone"))
                    return
                await self._wait(self.ttft_s if position == 0 else self.itl_s)
                yield Delta(0, f" {position}", (position,), channel="answer" if position >= 2 else "reasoning")
            yield Finished(0, "length")
            yield Done(Usage(num_prompt, 0, request.limits.max_tokens or 16, 2))
        finally:
            self._at_once -= 1

    async def start(self) -> None: ...

    async def stop(self, drain_s: float = 0.0) -> None: ...

    def health(self) -> Health:
        return Health(True, True)

    def capabilities(self) -> Capabilities:
        return Capabilities("paced")

    def stats(self) -> Stats:
        return Stats()
