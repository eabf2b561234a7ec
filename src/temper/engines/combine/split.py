"""Traffic in fixed shares: canaries, A/B tests, shadows.

A seeded hash of the sticky key decides the arm, so a caller stays on one side without anything being stored, on every
replica. The arm is recorded before the request goes out, so that a lost one is counted too; there is no second try on
another arm, which would blur what is compared. A shadow arm gets a copy; what becomes of it nobody sees.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from hashlib import blake2b

from temper.engines.base import Capabilities, Engine, Health
from temper.engines.combine.combinator import Child, Combinator
from temper.engines.combine.figures import check, meet, merged
from temper.engines.combine.patience import events
from temper.engines.kinds import Context, build_section
from temper.errors import Draining
from temper.profile import schema
from temper.profile.schema import ArmConfig, Section
from temper.types import Done, Event, Failed, Request

log = logging.getLogger(__name__)

SHADOW_SILENCE_S = 120.0
"""A copy that nobody reads is given up when nothing comes for so long."""

Record = Callable[[Request, str], None]
"""Told (request, name of the arm) before the request goes out."""


class SplitEngine(Combinator):
    """See the module."""

    name = "split"

    def __init__(
        self,
        config: schema.SplitEngine,
        context: Context | None = None,
        *,
        engines: Sequence[Engine] | None = None,
        record: Record | None = None,
    ) -> None:
        """`engines` stand in for those that `config` describes."""
        if engines is None:
            assert context is not None, "an engine is built either from a context or from engines"
            engines = [build_section(arm.engine, context) for arm in config.arms]
        arms = zip(config.arms, engines, strict=True)
        super().__init__([Child(arm.name, arm.engine, engine) for arm, engine in arms])
        self.record = record
        self._counts = {
            arm.name: {"requests_total": 0, "failures_total": 0, "unfinished_total": 0} for arm in config.arms
        }
        self._shadows: set[asyncio.Task[None]] = set()
        self._take(config)

    def _parts(self, section: Section) -> list[tuple[str, Section]] | None:
        if not isinstance(section, schema.SplitEngine):
            return None
        return [(arm.name, arm.engine) for arm in section.arms]

    def _take(self, section: Section) -> None:
        assert isinstance(section, schema.SplitEngine)
        self._config = section
        self._answering = [arm for arm in section.arms if not arm.shadow]
        self._shadowing = [arm for arm in section.arms if arm.shadow]
        self._by_name = {child.name: child for child in self.children}

    def _is_needed(self, child: Child) -> bool:
        return child.name not in self._hidden()

    async def stop(self, drain_s: float = 0.0) -> None:
        """Shadows end at once; answers may take `drain_s` seconds."""
        self._state = Draining("the engine is stopping", retry_after_s=5.0)
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)
        await super().stop(drain_s)

    def health(self) -> Health:
        """Ready when every arm that answers is; shadows are listed."""
        found = super().health()
        if self._state is None:
            answering = {arm.name: found.engines[arm.name] for arm in self._answering}
            return replace(merged(answering, needs_all=True), engines=found.engines)
        return found

    def _combined(self, cans: Sequence[Capabilities]) -> Capabilities:
        answering = {arm.name for arm in self._answering}
        found = [can for child, can in zip(self._started(), cans, strict=True) if child.name in answering]
        return meet(found, alike=len({arm.engine.model_dump_json() for arm in self._answering}) == 1)

    def _hidden(self) -> Sequence[str]:
        return [arm.name for arm in self._shadowing]

    def _details(self) -> Mapping[str, object]:
        return {name: dict(counts) for name, counts in self._counts.items()}

    # -- a request -------------------------------------------------------------------------------------

    def arm_of(self, request: Request) -> str:
        """The arm that answers this request: the same for the same key, whenever and wherever it is asked."""
        place, below = _fraction(self._config.seed, "arm", self.key_of(request)), 0.0
        for arm in self._answering[1:]:
            below += arm.share
            if place < below:
                return arm.name
        return self._answering[0].name

    def key_of(self, request: Request) -> str:
        """What keeps a caller on one side; begins with `request:` where each request stands for itself."""
        sticky = self._config.sticky
        if sticky == "tenant" and request.tenant is not None:
            return f"tenant:{request.tenant}"
        if sticky.startswith("extension:"):
            value = request.extensions.get(sticky.removeprefix("extension:"))
            if value is not None:
                return f"{sticky}:{value}"
        return f"request:{request.id}"

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """The events of the arm that the request belongs to."""
        self._check_open()
        check(request, self.capabilities(), self.name)
        name = self.arm_of(request)
        asked = self._without_key(request)
        counts = self._counts[name]
        counts["requests_total"] += 1
        if self.record is not None:
            self.record(request, name)
        shadows = self._cast_shadows(request, asked)
        child = self._by_name[name]
        ended = False
        try:
            async with aclosing(events(child.engine, asked)) as stream:
                async for event in stream:
                    if isinstance(event, Done):
                        ended = True
                        yield self._signed(event, child)
                    else:
                        if isinstance(event, Failed):
                            counts["failures_total"] += 1
                            ended = True
                        yield event
        finally:
            if not ended:
                counts["unfinished_total"] += 1  # refused, or the caller left
                for task in shadows:
                    task.cancel()

    def _without_key(self, request: Request) -> Request:
        """The request without the extension that was meant for this engine alone."""
        name = self._config.sticky.removeprefix("extension:")
        if name == self._config.sticky or name not in request.extensions:
            return request
        return replace(request, extensions={key: v for key, v in request.extensions.items() if key != name})

    def _cast_shadows(self, request: Request, asked: Request) -> list[asyncio.Task[None]]:
        tasks = []
        for arm in self._shadowing:
            if _fraction(self._config.seed, f"shadow:{arm.name}", self.key_of(request)) >= arm.share:
                continue
            if len(self._shadows) >= self._config.max_shadows or arm.name not in self._up:
                self._counts[arm.name]["unfinished_total"] += 1
                continue
            task = asyncio.create_task(self._shadow(arm, asked))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)
            tasks.append(task)
        return tasks

    async def _shadow(self, arm: ArmConfig, request: Request) -> None:
        counts = self._counts[arm.name]
        counts["requests_total"] += 1
        if self.record is not None:
            self.record(request, arm.name)
        ended = False
        try:
            async with aclosing(events(self._by_name[arm.name].engine, request, SHADOW_SILENCE_S)) as stream:
                async for event in stream:
                    ended = isinstance(event, Done)
        except Exception as error:  # whatever a shadow meets is nobody's error
            log.debug("the shadow '%s' refused %s: %s", arm.name, request.id, error)
        finally:
            counts["failures_total"] += not ended


def _fraction(seed: int, purpose: str, key: str) -> float:
    """A number in [0, 1) decided by its arguments alone."""
    digest = blake2b(f"{seed}\0{purpose}\0{key}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
