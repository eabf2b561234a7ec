"""A root whose engine tree can be replaced while requests run: none is dropped, doubled or mixed.

New requests go to the new tree as soon as it has started; streams that began on the old one end there, then it is
stopped. A change of hot fields alone swaps nothing: the tree takes them over. A new tree that does not start changes
nothing either. While both live, the machine must hold both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, cast

from temper.engines.base import Capabilities, Engine, Health, Scores, Stats
from temper.engines.combine.figures import total
from temper.engines.tracing import EngineTrace
from temper.errors import Draining, TemperError, from_code
from temper.profile.schema import Profile
from temper.profile.store import Change, diff
from temper.types import Event, Message, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

LAST_STREAMS_S = 600.0
"""How long streams on a replaced tree may go on; what is left then is cut."""
_POLL_S = 0.02

Make = Callable[[Profile], Awaitable[Engine]]
"""Builds the tree of a profile, not started; may fetch what it needs first."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of a wish for another profile."""

    how: Literal["unchanged", "applied", "swapped"]
    """Nothing differed, the running tree took it over, or a new tree took its place."""
    fields: tuple[Change, ...]
    """What differed."""


class _Tree:
    """One engine tree and how many streams are on it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.num_open = 0


class Swappable(Engine):
    """The engine that a server holds when the tree below it may change. Adds nothing to `made_by`."""

    def __init__(self, profile: Profile, engine: Engine, make: Make) -> None:
        """`engine` is the tree of `profile`, not started."""
        self.profile = profile
        self._make = make
        self._tree = _Tree(engine)
        self._old: dict[asyncio.Task[None], _Tree] = {}
        self._adapters: dict[str, str] = {}
        """Loaded since the beginning, by name: a new tree gets them too."""
        self._past = Stats()
        """Totals of trees that are gone: a counter never falls while the process lives."""
        self._lock = asyncio.Lock()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The present tree's."""
        return self._tree.engine.name

    @property
    def engine(self) -> Engine:
        """The present tree."""
        return self._tree.engine

    # -- changing --------------------------------------------------------------------------------------

    async def change(self, profile: Profile) -> Changed:
        """Serve `profile` from now on, with as little change as it takes.

        Raises:
            TemperError: the new tree cannot be built or does not start; the old one goes on.
        """
        async with self._lock:
            changes = diff(self.profile, profile)
            if not changes:
                return Changed("unchanged", ())
            if profile.engine == self.profile.engine or await self._tree.engine.apply(profile):
                self.profile = profile
                return Changed("applied", changes)
            try:
                await self.swap(await self._make(profile))
            except TemperError as error:
                raise from_code(
                    error.code,
                    f"the new profile cannot be served, the old one goes on: {error.message}",
                    param=error.param,
                    hint=error.hint,
                ) from error
            self.profile = profile
            return Changed("swapped", changes)

    async def put(self, profile: Profile, engine: Engine) -> None:
        """Serve `engine`, a tree that stands for `profile` though it may be more than that profile says.

        Raises:
            TemperError: it does not start; the present tree goes on.
        """
        async with self._lock:
            await self.swap(engine)
            self.profile = profile

    async def swap(self, engine: Engine) -> None:
        """Start `engine`, put it in the present tree's place, and stop that one when its last stream has ended."""
        await engine.start()
        await self._load_again(engine)
        old, self._tree = self._tree, _Tree(engine)
        task = asyncio.create_task(self._retire(old))
        self._old[task] = old
        task.add_done_callback(lambda done: self._old.pop(done, None))
        log.info("swapped to a new tree; %d streams end on the old one", old.num_open)

    async def _load_again(self, engine: Engine) -> None:
        """Adapters that were loaded into the tree before it, where the new one has none of that name and can."""
        for name, source in self._adapters.items():
            if name not in engine.capabilities().adapters:
                try:
                    await engine.load_adapter(name, source)
                except TemperError as error:
                    log.warning("the new tree does without the adapter '%s': %s", name, error)

    async def _retire(self, tree: _Tree) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + LAST_STREAMS_S
        while tree.num_open and loop.time() < end:
            await asyncio.sleep(_POLL_S)
        if tree.num_open:
            log.warning("%d streams on the old tree are cut after %g s", tree.num_open, LAST_STREAMS_S)
        await self._end(tree, 0.0)

    async def _end(self, tree: _Tree, drain_s: float) -> None:
        try:
            await tree.engine.stop(drain_s)
        except Exception as error:
            log.warning("an old tree did not stop cleanly: %s", error)
        self._past = _totals([self._past, tree.engine.stats()])

    # -- the seam --------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """The events of the tree that is there when the request comes."""
        while True:
            tree, begun = self._tree, False
            tree.num_open += 1
            try:
                async with aclosing(cast(AsyncGenerator[Event, None], tree.engine.generate(request))) as stream:
                    async for event in stream:
                        begun = True
                        yield event
                return
            except Draining:
                if begun or tree is self._tree:
                    raise  # else: it came a moment too late for the old tree
            finally:
                tree.num_open -= 1

    def prepare(self) -> None:
        """Let the present tree begin to start."""
        self._tree.engine.prepare()

    async def start(self) -> None:
        """Start the present tree."""
        await self._tree.engine.start()

    async def stop(self, drain_s: float = 0.0) -> None:
        """Stop the present tree and those that still end streams."""
        old = list(self._old.values())
        for task in list(self._old):
            task.cancel()
        await asyncio.gather(*list(self._old), return_exceptions=True)
        await asyncio.gather(self._tree.engine.stop(drain_s), *(self._end(tree, drain_s) for tree in old))

    def health(self) -> Health:
        """The present tree's."""
        return self._tree.engine.health()

    def capabilities(self) -> Capabilities:
        """The present tree's."""
        return self._tree.engine.capabilities()

    def stats(self) -> Stats:
        """The present tree's, with the totals of those before it and the streams that still end on old ones."""
        now = self._tree.engine.stats()
        if self._past == Stats() and not self._old:
            return now
        old = [tree.engine.stats() for tree in self._old.values()]
        found = _totals([now, self._past, *old])
        running = total({str(number): stats for number, stats in enumerate([now, *old])})
        return replace(found, num_running=running.num_running, num_waiting=running.num_waiting)

    async def tokenize(self, text: str | Sequence[Message], *, add_special_tokens: bool = True) -> list[int]:
        """As the present tree does."""
        return await self._tree.engine.tokenize(text, add_special_tokens=add_special_tokens)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """As the present tree does."""
        return await self._tree.engine.detokenize(token_ids)

    async def count_tokens(self, request: Request) -> int:
        """As the present tree does."""
        return await self._tree.engine.count_tokens(request)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the present tree does."""
        return await self._tree.engine.embed(texts)

    async def score(self, tokens: Sequence[int], top_k: int | None = None) -> Scores:
        """As the present tree does."""
        return await self._tree.engine.score(tokens, top_k)

    async def load_adapter(self, name: str, source: str, *, replace: bool = False) -> None:
        """As the present tree does; the trees after it load it too."""
        async with self._lock:
            await self._tree.engine.load_adapter(name, source, replace=replace)
            self._adapters[name] = source

    async def unload_adapter(self, name: str, *, wait: bool = True) -> None:
        """As the present tree does."""
        self._adapters.pop(name, None)
        await self._tree.engine.unload_adapter(name, wait=wait)

    async def start_trace(self) -> None:
        """As the present tree does."""
        await self._tree.engine.start_trace()

    async def stop_trace(self) -> EngineTrace:
        """As the present tree does."""
        return await self._tree.engine.stop_trace()

    async def apply(self, profile: Profile) -> bool:
        """Always hot, by a swap where the tree cannot change."""
        await self.change(profile)
        return True


def _totals(parts: Sequence[Stats]) -> Stats:
    """The first one's gauges, with the totals of all."""
    names = [item.name for item in fields(Stats) if item.name.endswith("_total")]
    return replace(parts[0], **{name: sum(getattr(part, name) for part in parts) for name in names})
