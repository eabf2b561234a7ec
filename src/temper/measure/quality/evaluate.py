"""Run a suite over an engine: ask every item, score every answer, put figures with intervals together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from temper.asking import Answer, collect
from temper.engines.base import Engine
from temper.errors import Invalid, Rejected, TemperError, Unsupported
from temper.measure.quality.answers import final_text
from temper.measure.quality.intervals import bootstrap_mean, wilson
from temper.measure.quality.report import CONFIDENCE, Figure, Report, Result
from temper.measure.quality.suite import Item, Metric, Noted, Probe, Suite
from temper.types import Request, Sampling, Thinking

MAX_RETRIES = 20
"""Of a request that the engine will not take now; each waits as long as the engine says."""
RETRY_S = 0.5
"""The wait where it does not say."""

TRUNCATION = Metric(
    "truncation_rate",
    "share of answers that their token limit cut off; such an answer is scored as far as it came",
    better="lower",
    kind="share",
    worst=None,
)

Tell = Callable[[str, int, int], None]
"""Told what is going on, how many items are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked of the engine beside the items. What is left out is as the profile, or the item, says."""

    sampling: Sampling = field(default_factory=Sampling)
    """Fields that are set here override the item's; the item's own seed stays."""
    max_tokens: int | None = None
    thinking: Thinking = field(default_factory=Thinking)
    concurrency: int = 8
    """Items asked at once."""


async def evaluate(
    engine: Engine,
    suite: Suite | Probe,
    seed: int,
    count: int,
    *,
    settings: Settings | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Report:
    """Ask `engine`, which is started, up to `count` items of `suite` and score its answers.

    A request that fails is an item with the worst score, or left out where its metric has none, and is counted in
    `Report.num_failed`: an engine that breaks under a question does not look better for it.

    Raises:
        Invalid: fewer than one item asked for, or a suite without any.
        Unsupported: the engine cannot do what every item needs; found on the first.
    """
    settings = settings or Settings()
    if count < 1 or settings.concurrency < 1:
        raise Invalid("an evaluation asks at least one item, one at a time", param="count")
    items = suite.items(seed, count)
    if not items:
        raise Invalid(f"the suite '{suite.name}' has no items", param="suite")
    begin = time.monotonic()
    run = _Run(engine, suite, settings, tell, len(items))
    results = [await run.one(items[0]), *await run.all(items[1:])]
    can = engine.capabilities()
    answered = [result for result in results if result.finish_reason is not None]
    return Report(
        suite=suite.name,
        model=can.model,
        engine=engine.name,
        seed=seed,
        count=len(items),
        figures={metric.name: _figure(metric, results, seed) for metric in suite.metrics},
        truncation=_share(TRUNCATION, sum(result.truncated for result in answered), len(answered)),
        results=tuple(results),
        wall_s=time.monotonic() - begin,
        settings=_plain(settings),
        notes=dict(suite.notes()) if isinstance(suite, Noted) else {},
    )


class _Run:
    """One evaluation under way."""

    def __init__(self, engine: Engine, suite: Suite | Probe, settings: Settings, tell: Tell, total: int) -> None:
        self._engine, self._suite, self._settings, self._tell, self._total = engine, suite, settings, tell, total
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._done = 0

    async def all(self, items: Sequence[Item]) -> list[Result]:
        tasks = [asyncio.create_task(self.one(item)) for item in items]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def one(self, item: Item) -> Result:
        async with self._slots:
            begin = time.monotonic()
            try:
                result = await self._measured(item)
            except Unsupported:
                raise
            except TemperError as error:
                values = {metric.name: metric.worst for metric in self._suite.metrics if metric.worst is not None}
                result = Result(item.id, values, error=f"{error.code}: {error.message}")
            self._done += 1
            self._tell(self._suite.name, self._done, self._total)
            return replace(result, duration_s=time.monotonic() - begin)

    async def _measured(self, item: Item) -> Result:
        suite = self._suite
        if isinstance(suite, Probe):
            return Result(item.id, dict(await suite.measure(self._engine, item)))
        answer = await self._asked(_with(item.request, self._settings))
        values = await asyncio.to_thread(suite.score, item, answer)
        # One sample that was cut off marks the whole item.
        reasons = [sample.finish_reason for sample in answer.samples]
        return Result(
            item.id,
            dict(values),
            text=final_text(answer),
            finish_reason="length" if "length" in reasons else (reasons[0] or "stop"),
            prompt_tokens=answer.usage.prompt_tokens,
            completion_tokens=answer.usage.completion_tokens,
            reasoning_tokens=answer.usage.reasoning_tokens,
        )

    async def _asked(self, request: Request) -> Answer:
        for _ in range(MAX_RETRIES):
            try:
                return await collect(self._engine.generate(request))
            except Rejected as error:
                await asyncio.sleep(error.retry_after_s or RETRY_S)
        return await collect(self._engine.generate(request))


def _with(request: Request, settings: Settings) -> Request:
    given = {
        item.name: value
        for item in fields(Sampling)
        if (value := getattr(settings.sampling, item.name)) not in (None, ())
    }
    limits = request.limits
    if settings.max_tokens is not None:
        limits = replace(limits, max_tokens=settings.max_tokens)
    thinking = settings.thinking if settings.thinking != Thinking() else request.thinking
    return replace(request, sampling=replace(request.sampling, **given), limits=limits, thinking=thinking)


def _figure(metric: Metric, results: Sequence[Result], seed: int) -> Figure:
    values = [result.values[metric.name] for result in results if metric.name in result.values]
    if metric.kind == "share":
        return _share(metric, round(sum(values)), len(values))
    if not values:
        return Figure(metric, None, None, 0)
    return Figure(metric, sum(values) / len(values), bootstrap_mean(values, CONFIDENCE, seed), len(values))


def _share(metric: Metric, hits: int, total: int) -> Figure:
    if total == 0:
        return Figure(metric, None, None, 0)
    return Figure(metric, hits / total, wilson(hits, total, CONFIDENCE), total)


def _plain(settings: Settings) -> Mapping[str, Any]:
    """What was set, without what was left to the profile."""
    found: dict[str, Any] = {key: value for key, value in asdict(settings.sampling).items() if value not in (None, ())}
    found |= {f"thinking_{key}": value for key, value in asdict(settings.thinking).items() if value is not None}
    if settings.max_tokens is not None:
        found["max_tokens"] = settings.max_tokens
    return {**found, "concurrency": settings.concurrency}
