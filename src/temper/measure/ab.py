"""`temper ab` proper: two arms under the same load in turns, block by block, as outcomes with the unit they belong to.

A block is the same requests sent to both arms, one right after the other: A before B, then B before A (ABBA), so that
a machine that slows down slows both. Where A and B can only differ by a new start, engines are started again and
again, and the start is the unit; else both stay up, and each pair of blocks is a unit. What it all means is
`ab_verdict`'s; who is compared is decided by the composition root.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

from temper.engines.base import Engine
from temper.errors import EngineFailure, Invalid, NotFound, Rejected
from temper.measure.bench import Subject, Tell, adapt
from temper.measure.loadgen import Outcome, drive
from temper.measure.stats.verdict import Verdict
from temper.measure.subjects import Opened
from temper.measure.workload.plan import Session, plan
from temper.measure.workload.schema import Closed, Workload
from temper.measure.workload.text import Wording
from temper.profile import store
from temper.profile.schema import Profile
from temper.profile.walk import tunable_fields

Opening = Callable[[], AbstractAsyncContextManager[Opened]]
"""Starts an arm, and stops it at the end of the context."""

Quality = Callable[[Engine, Engine], Awaitable[Verdict]]
"""Judges answers rather than speed: whether B (the second) is not worse than A, on the same items."""

BLOCKS_PER_START = 2
"""A before B, then B before A: the order is balanced within each start."""
MOST_BLOCKS = 10_000
PROBES = 5
"""Attempts to get one answer of each arm before the load: an arm that fails now and then is compared, not refused."""


@dataclass(frozen=True, slots=True)
class Design:
    """How much is measured, in which units."""

    num_units: int = 16
    restart: bool = False
    """Engines are started anew for each unit, which then has `BLOCKS_PER_START` blocks of each arm."""
    requests: int = 24
    """In each block, for each arm."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_units * self.blocks_per_unit <= MOST_BLOCKS:
            raise Invalid(f"an A/B test has 1 to {MOST_BLOCKS} blocks, not {self.num_units}", param="units")
        if self.requests < 1:
            raise Invalid(f"a block needs requests, not {self.requests}", param="requests")

    @property
    def blocks_per_unit(self) -> int:
        """Blocks of each arm that belong together."""
        return BLOCKS_PER_START if self.restart else 1

    @property
    def unit(self) -> str:
        """What a unit is, in words."""
        return "engine start" if self.restart else "pair of blocks in time"


@dataclass(slots=True)
class Block:
    """The same requests, as both arms answered them."""

    unit: int
    number: int
    a_first: bool
    a: list[Outcome] = field(default_factory=list)
    b: list[Outcome] = field(default_factory=list)


@dataclass(slots=True)
class Measured:
    """Everything that was measured, and how."""

    design: Design
    workload: Workload
    """As both arms took it."""
    blocks: list[Block]
    notes: dict[str, list[str]]
    """By arm: `a`, `b`."""
    models: dict[str, str | None]
    quality: list[Verdict] = field(default_factory=list)


def needs_restart(a: Profile, b: Profile) -> list[str]:
    """The fields in which two profiles differ that only a new start of the engine changes; empty: all are hot."""
    hot: set[str] = set()
    for side in (a, b):
        hot |= {found.path for found in tunable_fields(side) if found.tunable is not None and not found.tunable.restart}
    return [change.path for change in store.diff(a, b) if change.path not in hot]


async def compare(
    open_a: Opening,
    open_b: Opening,
    workload: Workload,
    design: Design,
    *,
    tell: Tell = lambda text: None,
    quality: Sequence[Quality] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Measured:
    """Measure both arms; `quality` is asked at the end, while both are up. `clock` is `loadgen.drive`'s.

    Raises:
        Invalid: the workload cannot be planned, or an arm refuses it.
        NotFound: an arm is not there.
        TemperError: an arm does not start, or does not answer at all.
    """
    run = _Run(open_a, open_b, workload, design, tell, clock)
    num_starts = design.num_units if design.restart else 1
    per_start = design.blocks_per_unit if design.restart else design.num_units
    for start in range(num_starts):
        async with AsyncExitStack() as stack:
            a, b = await run.open(stack, a_first=start % 2 == 0)
            for block in range(per_start):
                await run.block(a, b, unit=start if design.restart else block)
            if start == num_starts - 1:
                for number, judge in enumerate(quality, 1):
                    tell(f"quality, {number} of {len(quality)}")
                    run.measured.quality.append(await judge(a.engine, b.engine))
    return run.measured


class _Run:
    """A comparison under way."""

    def __init__(
        self, open_a: Opening, open_b: Opening, workload: Workload, design: Design, tell: Tell,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._open = {"a": open_a, "b": open_b}
        self._design = design
        self._tell = tell
        self._clock = clock
        self._next = 0
        """The number of the next session, so that no prompt is sent twice to an arm."""
        self._adapted = False
        self.measured = Measured(design, workload, [], {}, {})

    async def open(self, stack: AsyncExitStack, *, a_first: bool) -> tuple[Subject, Subject]:
        """Start both arms and warm them up with the same requests."""
        found: dict[str, Subject] = {}
        for name in ("a", "b") if a_first else ("b", "a"):
            self._tell(f"{name.upper()}: starting")
            opened = await stack.enter_async_context(self._open[name]())
            if not opened.subjects:
                reason = opened.missing[0]["reason"] if opened.missing else "nothing was opened"
                raise NotFound(f"{name.upper()} is not here: {reason}", param=name)
            found[name] = opened.subjects[0]
        a, b = found["a"], found["b"]
        if not self._adapted:
            a.notes, b.notes = [], []  # those that are there are about memory, which is not compared
            self.measured.workload = await _adapted(self.measured.workload, [a, b])
            self.measured.notes = {"a": a.notes, "b": b.notes}
            self.measured.models = {name: subject.engine.capabilities().model for name, subject in found.items()}
            self._adapted = True
        if self.measured.workload.warmup:
            sessions = self._sessions(self.measured.workload.warmup)
            for subject in (a, b) if a_first else (b, a):
                await self._drive(subject.engine, sessions)
        return a, b

    async def block(self, a: Subject, b: Subject, *, unit: int) -> None:
        """The same requests to both arms, in turns."""
        number = len(self.measured.blocks)
        total = self._design.num_units * self._design.blocks_per_unit
        block = Block(unit, number, a_first=number % 2 == 0)
        sessions = self._sessions(self._design.requests)
        for name in "ab" if block.a_first else "ba":
            self._tell(f"block {number + 1} of {total}: {name.upper()}")
            if name == "a":
                block.a = await self._drive(a.engine, sessions)
            else:
                block.b = await self._drive(b.engine, sessions)
        self.measured.blocks.append(block)

    def _sessions(self, count: int) -> list[Session]:
        workload = self.measured.workload
        try:
            sessions = plan(workload, Wording(), first=self._next, count=count)
        except Invalid:
            if workload.content.kind in ("synthetic", "chats") or not self._next:
                raise
            sessions = plan(workload, Wording(), count=count)  # a trace is finite: it begins again, for both arms alike
        self._next = sessions[-1].index + 1
        return sessions

    async def _drive(self, engine: Engine, sessions: Sequence[Session]) -> list[Outcome]:
        workload = self.measured.workload
        concurrency = workload.arrivals.concurrency if isinstance(workload.arrivals, Closed) else None
        timeout_s = workload.timeout_s
        run = await drive(engine, sessions, concurrency=concurrency, timeout_s=timeout_s, clock=self._clock)
        return run.outcomes


async def _adapted(workload: Workload, subjects: Sequence[Subject]) -> Workload:
    for attempt in range(1, PROBES + 1):
        try:
            return await adapt(workload, subjects)
        except (EngineFailure, Rejected):
            if attempt == PROBES:
                raise
    raise AssertionError("the last attempt returns or raises")
