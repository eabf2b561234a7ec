"""What all combinators share: children that start, stop, are summed up and change together.

A combinator offers what its children truly can, refuses the rest, and adds its own name to `made_by`. How a request
finds its child is each combinator's own.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from temper.engines.base import Capabilities, Engine, Health, Scores, Stats
from temper.engines.combine.figures import meet, merged, total
from temper.errors import DeadlineExceeded, Draining, NotFound, Rejected, TemperError, Unsupported
from temper.profile.schema import Profile, Section
from temper.types import Done, MadeBy, Message, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

REVIVE_FIRST_S = 1.0
"""Before a child that did not start is started again; doubles up to `REVIVE_MOST_S`."""
REVIVE_MOST_S = 30.0


@dataclass(frozen=True, slots=True)
class Child:
    """One engine below a combinator."""

    name: str
    """What statistics, health and `made_by.branch` call it; differs from its siblings'."""
    section: Section
    engine: Engine


class Combinator(Engine):
    """Base of the engines over engines."""

    needs_all = True
    """Whether it can serve only with every child up."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = list(children)
        self._up: set[str] = set()
        """Names of the children that have started."""
        self._state: TemperError | None = Draining("the engine is not started", retry_after_s=1.0)
        self._revivals: list[asyncio.Task[None]] = []
        self._cans: list[Capabilities] = []
        self._known: Capabilities | None = None
        """What `_cans` are together."""

    # -- life ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Let the children begin to start."""
        for child in self.children:
            child.engine.prepare()

    async def start(self) -> None:
        """Start the children at once.

        Raises:
            TemperError: one that is needed could not start, or none could.
        """
        self._known = None
        try:
            ends = await asyncio.gather(*(child.engine.start() for child in self.children), return_exceptions=True)
        except asyncio.CancelledError:
            self._up = {child.name for child in self.children}  # as far as they came
            await self._stop_children(0.0)
            raise
        failed = [(child, end) for child, end in zip(self.children, ends, strict=True) if end is not None]
        self._up = {child.name for child in self.children} - {child.name for child, _ in failed}
        fatal = [end for child, end in failed if self._is_needed(child) or not isinstance(end, TemperError)]
        if failed and (fatal or not self._up):
            await self._stop_children(0.0)
            raise fatal[0] if fatal else failed[0][1]
        for child, end in failed:
            log.warning("%s: '%s' did not start, it is tried again: %s", self.name, child.name, end)
            self._revivals.append(asyncio.create_task(self._revive(child)))
        self._state = None

    async def stop(self, drain_s: float = 0.0) -> None:
        """Refuse from now on, then stop every child."""
        self._state = Draining("the engine is stopping", retry_after_s=5.0)
        for task in self._revivals:
            task.cancel()
        await asyncio.gather(*self._revivals, return_exceptions=True)
        self._revivals.clear()
        await self._stop_children(drain_s)

    async def _stop_children(self, drain_s: float) -> None:
        up = [child for child in self.children if child.name in self._up]
        ends = await asyncio.gather(*(child.engine.stop(drain_s) for child in up), return_exceptions=True)
        self._up.clear()
        for child, end in zip(up, ends, strict=True):
            if isinstance(end, BaseException):
                log.warning("%s: '%s' did not stop cleanly: %s", self.name, child.name, end)

    async def _revive(self, child: Child) -> None:
        wait_s = REVIVE_FIRST_S
        while True:
            await asyncio.sleep(wait_s)
            try:
                await child.engine.start()
            except TemperError as error:
                log.info("%s: '%s' still does not start: %s", self.name, child.name, error)
                wait_s = min(2 * wait_s, REVIVE_MOST_S)
                continue
            self._up.add(child.name)
            self._known = None
            return

    def _is_needed(self, child: Child) -> bool:
        """Whether nothing works without this child."""
        return self.needs_all

    def _check_open(self) -> None:
        """Raises Draining while nothing is taken."""
        if self._state is not None:
            raise self._state

    # -- what it is ------------------------------------------------------------------------------------

    def health(self) -> Health:
        """Of the children together."""
        children = {
            child.name: child.engine.health() if child.name in self._up else Health(False, False, "not started")
            for child in self.children
        }
        found = merged(children, needs_all=self.needs_all)
        if self._state is not None:
            return replace(found, alive=False, ready=False, reason=str(self._state))
        return found

    def capabilities(self) -> Capabilities:
        """What the children that are up all can."""
        cans = [child.engine.capabilities() for child in self._started()]
        if self._known is None or cans != self._cans:  # adapters come and go
            self._cans, self._known = cans, self._combined(cans)
        return self._known

    def _combined(self, cans: Sequence[Capabilities]) -> Capabilities:
        return meet(cans, alike=all(child.section == self.children[0].section for child in self.children))

    def _started(self) -> list[Child]:
        return [child for child in self.children if child.name in self._up] or self.children

    def stats(self) -> Stats:
        """Sums over the children, and each of them."""
        found = total({child.name: child.engine.stats() for child in self.children}, self._hidden())
        return replace(found, details=self._details())

    def _hidden(self) -> Sequence[str]:
        """Children whose figures are not part of the sums."""
        return ()

    def _details(self) -> Mapping[str, object]:
        return {}

    def _signed(self, event: Done, child: Child, **fields: object) -> Done:
        """`event` with this engine and the way to `child` in its `made_by`."""
        inner = event.made_by
        branch = child.name if inner.branch is None else f"{child.name}/{inner.branch}"
        made = MadeBy(
            engines=(self.name, *inner.engines),
            version=inner.version,
            precision=inner.precision,
            cache_hit=inner.cache_hit,
            preset=inner.preset,
            branch=branch,
            escalated=inner.escalated,
            citations=inner.citations,
            adapter=inner.adapter,
        )
        return Done(event.usage, event.timings, replace(made, **fields) if fields else made)  # type: ignore[arg-type]

    # -- changing --------------------------------------------------------------------------------------

    @abstractmethod
    def _parts(self, section: Section) -> list[tuple[str, Section]] | None:
        """(name, section) of each child that `section` describes, None when it is of another kind."""

    @abstractmethod
    def _take(self, section: Section) -> None:
        """Use this section from now on; children have changed already."""

    async def apply(self, profile: Profile) -> bool:
        """Take over what may change while running, here and in the children.

        False when something needs a restart; children before it may have changed then, in the direction of `profile`.
        """
        parts = self._parts(profile.engine)
        if parts is None or [name for name, _ in parts] != [child.name for child in self.children]:
            return False
        for at, (_, section) in enumerate(parts):
            child = self.children[at]
            if section == child.section:
                continue
            if not await child.engine.apply(profile.model_copy(update={"engine": section})):
                return False
            self.children[at] = Child(child.name, section, child.engine)
        self._take(profile.engine)
        self._known = None
        return True

    async def load_adapter(self, name: str, source: str, *, replace: bool = False) -> None:
        """Into every child that takes adapters. When one cannot load it, those before it do without it again."""
        had = set(self._adapters_of(name))
        takers: list[Child] = []
        try:
            for child in self._started():
                try:
                    await child.engine.load_adapter(name, source, replace=replace)
                except Unsupported:
                    continue
                takers.append(child)
        except TemperError:
            for child in takers:
                if child.name not in had:
                    await child.engine.unload_adapter(name, wait=False)
            raise
        if not takers:
            raise Unsupported(f"no engine behind '{self.name}' has the capability 'adapters'", param="lora_name")

    async def unload_adapter(self, name: str, *, wait: bool = True) -> None:
        """From every child that has it."""
        had = self._adapters_of(name)
        if not had:
            raise NotFound(f"no engine behind '{self.name}' has an adapter '{name}'", param="lora_name")
        children = [child for child in self.children if child.name in had]
        await asyncio.gather(*(child.engine.unload_adapter(name, wait=wait) for child in children))

    def _adapters_of(self, name: str) -> list[str]:
        """Names of the children that offer the adapter."""
        return [child.name for child in self._started() if name in child.engine.capabilities().adapters]

    # -- what else is offered --------------------------------------------------------------------------

    def _tokenizer(self, what: str) -> Engine:
        can = self.capabilities()
        if not getattr(can, what):
            raise Unsupported(f"the engines behind '{self.name}' do not all offer {what}, or differ in it", param=what)
        ready = [child for child in self._started() if child.engine.health().ready]
        return (ready or self._started())[0].engine

    async def tokenize(self, text: str | Sequence[Message], *, add_special_tokens: bool = True) -> list[int]:
        """As the children do, where they agree."""
        return await self._tokenizer("tokenize").tokenize(text, add_special_tokens=add_special_tokens)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """As the children do, where they agree."""
        return await self._tokenizer("tokenize").detokenize(token_ids)

    async def count_tokens(self, request: Request) -> int:
        """As the children do, where they agree."""
        return await self._tokenizer("tokenize").count_tokens(request)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the children do, where they agree."""
        return await self._tokenizer("embed").embed(texts)

    async def score(self, tokens: Sequence[int], top_k: int | None = None) -> Scores:
        """As the children do, where they agree."""
        return await self._tokenizer("score").score(tokens, top_k)


def remaining(request: Request, began: float, now: float) -> Request:
    """`request` with what is left of its deadline.

    Raises:
        DeadlineExceeded: nothing is left.
    """
    if request.deadline_s is None or now == began:
        return request
    left = request.deadline_s - (now - began)
    if left <= 0:
        raise DeadlineExceeded(f"the answer was not complete within {request.deadline_s} s", param="deadline_s")
    return replace(request, deadline_s=left)


def soonest(refusals: Sequence[Rejected]) -> Rejected:
    """The refusal that asks for the shortest wait."""
    return min(refusals, key=lambda error: error.retry_after_s or 1.0)


def numbered(children: Sequence[tuple[Section, Engine]]) -> list[Child]:
    """Children without names of their own, called by engine and place: `native-0`."""
    return [Child(f"{engine.name}-{at}", section, engine) for at, (section, engine) in enumerate(children)]
