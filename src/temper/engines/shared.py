"""One engine in several trees: started by the first that holds it, stopped by the last that lets go.

When a root changes its tree and both trees hold the same engine, it must neither be loaded twice nor be stopped under
the new tree, and its figures must be counted once. Each tree gets a `Lent` of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from temper.engines.base import Capabilities, Engine, Health, Scores, Stats
from temper.engines.tracing import EngineTrace
from temper.profile.schema import Profile
from temper.types import Event, Message, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Shared:
    """An engine, and who holds it."""

    def __init__(self, engine: Engine) -> None:
        """`engine` is not started yet."""
        self.engine = engine
        self._holders: list[Lent] = []
        self._lock = asyncio.Lock()

    def lend(self) -> Lent:
        """A handle for one tree; its start and stop count."""
        return Lent(self)

    def prepare(self) -> None:
        """Let the engine begin to start, unless it has."""
        if not self._holders:
            self.engine.prepare()

    async def take(self, lent: Lent) -> None:
        """Start for the first holder."""
        async with self._lock:
            if not self._holders:
                await self.engine.start()
            self._holders.append(lent)

    async def give_back(self, lent: Lent, drain_s: float) -> None:
        """Stop after the last holder."""
        async with self._lock:
            if lent not in self._holders:
                if not self._holders:
                    await self.engine.stop(drain_s)  # a start that was broken off, or an end after the end
                return
            if len(self._holders) == 1:
                await self.engine.stop(drain_s)
                lent.last = self.engine.stats()
            self._holders.remove(lent)

    def counts_for(self, lent: Lent) -> bool:
        """Whether this holder shows the engine's figures: the newest one does, so they are counted once."""
        return bool(self._holders) and self._holders[-1] is lent


class Lent(Engine):
    """An engine as one tree holds it. Nothing is added in the path of a request."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.last = Stats()
        """What the engine had counted when it stopped in this tree's hands."""

    @property
    def name(self) -> str:  # type: ignore[override]
        """The engine's."""
        return self.shared.engine.name

    def generate(self, request: Request) -> AsyncIterator[Event]:
        """The engine's own stream."""
        return self.shared.engine.generate(request)

    def prepare(self) -> None:
        """Let it begin to start, unless another tree has started it."""
        self.shared.prepare()

    async def start(self) -> None:
        """Start it, unless another tree has."""
        await self.shared.take(self)

    async def stop(self, drain_s: float = 0.0) -> None:
        """Stop it, unless another tree still holds it."""
        await self.shared.give_back(self, drain_s)

    def health(self) -> Health:
        """The engine's."""
        return self.shared.engine.health()

    def capabilities(self) -> Capabilities:
        """The engine's."""
        return self.shared.engine.capabilities()

    def stats(self) -> Stats:
        """The engine's for its newest holder; nothing for the others."""
        return self.shared.engine.stats() if self.shared.counts_for(self) else self.last

    async def tokenize(self, text: str | Sequence[Message], *, add_special_tokens: bool = True) -> list[int]:
        """As the engine does."""
        return await self.shared.engine.tokenize(text, add_special_tokens=add_special_tokens)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """As the engine does."""
        return await self.shared.engine.detokenize(token_ids)

    async def count_tokens(self, request: Request) -> int:
        """As the engine does."""
        return await self.shared.engine.count_tokens(request)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the engine does."""
        return await self.shared.engine.embed(texts)

    async def score(self, tokens: Sequence[int], top_k: int | None = None) -> Scores:
        """As the engine does."""
        return await self.shared.engine.score(tokens, top_k)

    async def load_adapter(self, name: str, source: str, *, replace: bool = False) -> None:
        """As the engine does."""
        await self.shared.engine.load_adapter(name, source, replace=replace)

    async def unload_adapter(self, name: str, *, wait: bool = True) -> None:
        """As the engine does."""
        await self.shared.engine.unload_adapter(name, wait=wait)

    async def start_trace(self) -> None:
        """As the engine does."""
        await self.shared.engine.start_trace()

    async def stop_trace(self) -> EngineTrace:
        """As the engine does."""
        return await self.shared.engine.stop_trace()

    async def apply(self, profile: Profile) -> bool:
        """As the engine does; every tree that holds it changes."""
        return await self.shared.engine.apply(profile)
