"""The evaluator with real engines: starts them, changes them hot, loads them, asks them the quality suite.

It holds at most two engines, one a slot. Whatever goes wrong with one is classified and becomes the block's trouble.
It decides nothing: which point is measured when is the search's business.
"""

from __future__ import annotations

import asyncio
import os
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from temper.asking import collect
from temper.engines.base import Engine
from temper.errors import (
    DeadlineExceeded,
    EngineFailure,
    Invalid,
    OutOfMemory,
    ProfileError,
    TemperError,
)
from temper.measure import latency
from temper.measure.loadgen import TIMEOUT, Outcome, drive
from temper.measure.memory import MemoryWatch, family
from temper.measure.quality.evaluate import evaluate
from temper.measure.quality.suite import Probe, Suite
from temper.measure.stats.percentile import nearest_rank
from temper.measure.workload.plan import plan
from temper.measure.workload.schema import Closed, Workload
from temper.measure.workload.text import Wording, wording_for
from temper.profile import store
from temper.profile.schema import Profile
from temper.tuner.evaluate import Block, Slot, Task, Trouble
from temper.tuner.objective import Limit
from temper.tuner.processes import cpu_seconds
from temper.tuner.space import Point, Space

PATIENCE = 10.0
"""A block that takes so many times the incumbent's longest is a hang."""
LEAST_PATIENCE_S = 60.0
START_TIMEOUT_S = 900.0
MOST_FAILED = 0.2
"""A block with a larger share of failed requests is trouble; fewer are counted and judged later."""
REASON_CHARS = 600
"""About as many of a trouble's reason are told."""
PROBE_TOKENS = 24
PROBE_SEED = 0x7E57
WARMUP_SEED = 0x3A3A
MOST_NOISE = 0.2
"""Share of characters that are none, above which an answer is garbage."""
QUALITY_ITEMS = 64

Build = Callable[[Profile], Engine]
"""Makes the engine of a profile, not started; fetches nothing."""
MakeSuite = Callable[[Engine, Engine], Suite | Probe]
"""Makes the quality suite for an engine and the incumbent's, both started."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What a block of load is."""

    workload: Workload
    limits: tuple[Limit, ...] = ()
    price_per_hour: float = 1.0
    """Of the machine, in any currency; effects are ratios, in which it cancels."""


@dataclass(slots=True)
class _Running:
    engine: Engine
    point: Point
    pids: tuple[int, ...]
    wording: Wording
    details: Mapping[str, Any] = field(default_factory=dict)


class LiveEvaluator:
    """Measures real engines. See `evaluate.Evaluator`."""

    def __init__(
        self,
        space: Space,
        build: Build,
        load: LoadPlan,
        *,
        suite: MakeSuite | None = None,
        together: bool = True,
        start_timeout_s: float = START_TIMEOUT_S,
        least_patience_s: float = LEAST_PATIENCE_S,
    ) -> None:
        self._space, self._build, self._load = space, build, load
        self._suite = suite
        self._together = together
        """Whether both slots may hold an engine at a time."""
        self._start_timeout_s = start_timeout_s
        self._least_patience_s = least_patience_s
        self._running: dict[Slot, _Running] = {}
        self._longest_s: dict[str, float] = {}
        self._notes: list[str] = []

    def describe(self) -> Mapping[str, Any]:
        """What is measured, for the report."""
        return {
            "evaluator": "live",
            "workload": self._load.workload.model_dump(mode="json"),
            "price_per_hour": self._load.price_per_hour,
            "asks_for_quality": self._suite is not None,
            "engines_together": self._together,
            "notes": list(self._notes),
        }

    async def measure(self, task: Task) -> Block:
        """Do one task; every failure of an engine is an answer."""
        try:
            running, start_s = await self._ready(task)
        except (TemperError, OSError, MemoryError, TimeoutError) as error:
            await self._drop(task.slot)
            return Block(trouble=classify(error))
        begin = time.monotonic()
        try:
            async with asyncio.timeout(self._patience(task)):
                found = await (self._quality if task.kind == "quality" else self._loaded)(running, task)
        except TimeoutError:
            found = Block(trouble=Trouble("hang", f"no end within {self._patience(task):.0f} s"))
        except (TemperError, OSError, MemoryError) as error:
            found = Block(trouble=classify(error))
        seconds = time.monotonic() - begin
        if found.trouble is not None:
            await self._drop(task.slot)
        elif task.slot == "incumbent":
            self._longest_s[task.kind] = max(seconds, self._longest_s.get(task.kind, 0.0))
        return replace(found, seconds=round(seconds, 4), start_s=round(start_s, 4))

    async def close(self) -> None:
        """Stop both engines."""
        for slot in list(self._running):
            await self._drop(slot)

    # -- engines -----------------------------------------------------------------------------------------

    async def _ready(self, task: Task) -> tuple[_Running, float]:
        """The engine of a task, and the seconds that bringing it up took."""
        now = self._running.get(task.slot)
        if now is not None and not task.fresh and now.engine.health().ready:
            if now.point == task.point:
                return now, 0.0
            alike = self._space.cold_part(now.point) == self._space.cold_part(task.point)
            if alike and await now.engine.apply(self._deployment(task.point)):
                now.point = task.point
                return now, 0.0
        await self._drop(task.slot)
        if not self._together:
            await self.close()
        begin = time.monotonic()
        running = await self._start(task.point)
        self._running[task.slot] = running
        await self._warm(running)
        return running, time.monotonic() - begin

    def _deployment(self, point: Point) -> Profile:
        """The profile at a point, so that a server that dies stays dead: its end is what we want to see."""
        profile = self._space.profile(point)
        return store.override(profile, {"engine.max_restarts": 0}) if profile.engine.kind == "process" else profile

    async def _start(self, point: Point) -> _Running:
        before = set(family((os.getpid(),)))
        engine = self._build(self._deployment(point))
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await engine.start()
        except BaseException:
            await _stopped(engine)
            raise
        pids = tuple(pid for pid in family((os.getpid(),)) if pid not in before)
        details = {key: value for key, value in engine.stats().details.items() if isinstance(value, str | int | float)}
        return _Running(engine, point, pids, await self._wording(engine), details)

    async def _wording(self, engine: Engine) -> Wording:
        """Token ids where there is one tokenizer that tells them. Engines of several kinds are asked the same words."""
        if len(self._space.branches) > 1:
            return Wording()
        try:
            return await wording_for(engine)
        except TemperError:
            return Wording()

    async def _warm(self, running: _Running) -> None:
        """Ask for text that is looked at, then warm up.

        Raises:
            Garbled: the answer is no text.
        """
        workload = self._load.workload
        probe = plan(workload.model_copy(update={"seed": workload.seed + PROBE_SEED}), Wording(), count=1)[0].requests[
            0
        ]
        async with asyncio.timeout(self._least_patience_s):
            answer = await collect(
                running.engine.generate(replace(probe, limits=replace(probe.limits, max_tokens=PROBE_TOKENS)))
            )
        if is_garbage(answer.text + (answer.reasoning or "")):
            raise Garbled(f"asked for text, it said {answer.text[:40]!r}")
        if workload.warmup:
            warming = workload.model_copy(update={"seed": workload.seed + WARMUP_SEED})
            sessions = plan(warming, running.wording, count=workload.warmup)
            async with asyncio.timeout(self._start_timeout_s):
                await drive(
                    running.engine,
                    sessions,
                    concurrency=_users(workload) or len(sessions),
                    timeout_s=workload.timeout_s,
                )

    async def _drop(self, slot: Slot) -> None:
        running = self._running.pop(slot, None)
        if running is not None:
            await _stopped(running.engine)

    def _patience(self, task: Task) -> float:
        return max(self._least_patience_s, PATIENCE * self._longest_s.get(task.kind, self._start_timeout_s / PATIENCE))

    # -- measuring ---------------------------------------------------------------------------------------

    async def _loaded(self, running: _Running, task: Task) -> Block:
        change = {"seed": task.seed} | ({"requests": task.count} if task.count is not None else {})
        workload = self._load.workload.model_copy(update=change)
        sessions = plan(workload, running.wording)
        cpu_before = cpu_seconds(running.pids)
        async with MemoryWatch(running.pids) as memory:
            run = await drive(running.engine, sessions, concurrency=_users(workload), timeout_s=workload.timeout_s)
        cpu_after = cpu_seconds(running.pids)
        found = figures(run.outcomes, workload, self._load.price_per_hour)
        if memory.peak_rss_bytes is not None:
            found["rss_bytes"] = float(memory.peak_rss_bytes)
        num_whole = sum(outcome.failure is None for outcome in run.outcomes)
        if cpu_before is not None and cpu_after is not None and num_whole:
            found["cpu_s_per_request"] = (cpu_after - cpu_before) / num_whole
        return Block(
            figures=found,
            num_requests=len(run.outcomes),
            num_failed=len(run.outcomes) - num_whole,
            misses={limit.name: misses(run.outcomes, limit) for limit in self._load.limits if limit.share is not None},
            trouble=_trouble_of(run.outcomes),
            details=running.details,
        )

    async def _quality(self, running: _Running, task: Task) -> Block:
        if self._suite is None:
            raise Invalid("quality was asked for, but the study has no suite", param="suite")
        against = self._running.get("incumbent", running)
        suite = self._suite(running.engine, against.engine)
        report = await evaluate(running.engine, suite, task.seed, task.count or QUALITY_ITEMS)
        primary = report.primary
        name = primary.metric.name
        if primary.value is None:
            return Block(trouble=Trouble("failures", f"no item of {report.suite} could be scored"))
        tokens = sum(result.completion_tokens for result in report.results)
        correct = sum(result.values.get(name, 0.0) for result in report.results)
        found = {"quality": primary.value, "answer_tokens": tokens / report.count}
        if correct > 0:
            found["cost_per_correct"] = report.wall_s / 3600 * self._load.price_per_hour / correct
        return Block(
            figures=found,
            num_requests=report.count,
            num_failed=report.num_failed,
            scores={result.id: result.values[name] for result in report.results if name in result.values},
            details={"suite": report.suite, "metric": asdict(primary.metric), "seed": task.seed},
        )


class Garbled(EngineFailure):
    """An engine that answers, but not with text."""

    code = "garbage"


def brief(text: str) -> str:
    """About `REASON_CHARS` of it: how it begins and, as programs say at last why they die, above all its end."""
    if len(text) <= REASON_CHARS:
        return text
    return f"{text[: REASON_CHARS // 3]} … {text[-2 * REASON_CHARS // 3 :]}"


def classify(error: BaseException) -> Trouble:
    """The trouble that an error stands for."""
    said = " ".join(str(error).split()) or type(error).__name__
    text, lowered = brief(said), said.lower()
    if isinstance(error, Garbled):
        return Trouble("garbage", text)
    if isinstance(error, MemoryError | OutOfMemory) or any(
        sign in lowered for sign in ("out of memory", "cannot allocate", "bad_alloc", "oom", "signal 9", "code -9")
    ):
        return Trouble("out_of_memory", text)
    if isinstance(error, TimeoutError | DeadlineExceeded) or "did not become ready" in lowered:
        return Trouble("hang", text if text != "TimeoutError" else "no end within the time allowed")
    if isinstance(error, ProfileError | Invalid):
        return Trouble("refused", text)
    return Trouble("crash", text)


def is_garbage(text: str) -> bool:
    """Whether an answer is no text: empty, or a large part of its characters are none."""
    if not text.strip():
        return True
    noise = sum(
        character == "\ufffd" or (unicodedata.category(character) in ("Cc", "Cn", "Co") and character not in "\n\r\t")
        for character in text
    )
    return noise / len(text) > MOST_NOISE


def figures(outcomes: Sequence[Outcome], workload: Workload, price_per_hour: float) -> dict[str, float]:
    """Flat figures of one block by dotted name. Percentiles of so few values are estimates: they steer a search, and
    what is claimed is counted in `misses`."""
    plain = latency.figures(outcomes, workload.slo)
    names = ("output_tokens_per_s", "requests_per_s", "prefill_tokens_per_s", "goodput_per_s", "duration_s")
    found = {name: float(plain[name]) for name in names if plain[name] is not None}
    for name, values in values_ms(outcomes).items():
        ordered = sorted(values)
        if ordered:
            found |= {f"{name}.p{percent}": nearest_rank(ordered, percent) for percent in (50, 90, 95, 99)}
            found[f"{name}.mean"] = sum(ordered) / len(ordered)
    if plain["completed"]:
        found["answer_tokens"] = plain["output_tokens"] / plain["completed"]
        found["reasoning_tokens"] = plain["reasoning_tokens"] / plain["completed"]
    if plain["output_tokens"]:
        found["cost_per_million_tokens"] = plain["duration_s"] / 3600 * price_per_hour / plain["output_tokens"] * 1e6
    return found


def values_ms(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Every latency of whole answers by metric, ms."""
    whole = [outcome for outcome in outcomes if outcome.failure is None and outcome.arrivals_s]
    seconds = {
        "ttft_ms": [latency.ttft_s(outcome) for outcome in whole],
        "ttfat_ms": [o.answer_s - o.due_s for o in whole if o.answer_s is not None],
        "itl_ms": [gap for outcome in whole for gap in latency.gaps_s(outcome)],
        "tpot_ms": [value for outcome in whole if (value := latency.tpot_s(outcome)) is not None],
        "e2e_ms": [outcome.end_s - outcome.due_s for outcome in whole],
    }
    return {name: [value * 1000 for value in values] for name, values in seconds.items()}


def misses(outcomes: Sequence[Outcome], limit: Limit) -> tuple[int, int]:
    """(values beyond the limit, values) of a limit on a percentile; a failed request is one beyond."""
    values = values_ms(outcomes).get(limit.metric.partition(".")[0], [])
    failed = sum(outcome.failure is not None for outcome in outcomes)
    return sum(limit.excess(value) > 0 for value in values) + failed, len(values) + failed


def _trouble_of(outcomes: Sequence[Outcome]) -> Trouble | None:
    """What a block's failures amount to."""
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    if len(failed) <= MOST_FAILED * len(outcomes):
        return None
    first = failed[0]
    kind = {"engine_died": "crash", "out_of_memory": "out_of_memory", TIMEOUT: "hang"}.get(
        first.failure or "", "failures"
    )
    return Trouble(kind, brief(f"{len(failed)} of {len(outcomes)} requests failed: {first.failure}: {first.message}"))


def _users(workload: Workload) -> int | None:
    return workload.arrivals.concurrency if isinstance(workload.arrivals, Closed) else None


async def _stopped(engine: Engine) -> None:
    """Stop an engine that may be broken; nothing that it says then matters."""
    try:
        async with asyncio.timeout(60.0):
            await engine.stop()
    except (TemperError, OSError, TimeoutError, RuntimeError):
        pass
