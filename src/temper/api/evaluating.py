"""The verb that asks how good answers are."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.api.checkpoints import fetch
from temper.api.environment import Place, place
from temper.api.profiles import DEFAULT_PROFILE, profile
from temper.api.running import build, fetch_all
from temper.errors import Invalid
from temper.profile.schema import Profile

if TYPE_CHECKING:
    from temper.measure.bench import Subject
    from temper.measure.quality.evaluate import Settings
    from temper.measure.quality.report import Report

DEFAULT_SUITES = ("arithmetic", "words", "logic")
DEFAULT_COUNT = 100

Tell = Callable[[str, int, int], None]


def evaluate(
    named: str | Path | Profile = DEFAULT_PROFILE,
    *,
    url: str | None = None,
    model: str | None = None,
    against: str | Path | Profile | None = None,
    suites: Sequence[str] = DEFAULT_SUITES,
    count: int = DEFAULT_COUNT,
    seed: int | None = None,
    margin: float | None = None,
    sampling: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
    thinking: Mapping[str, Any] | None = None,
    concurrency: int = 8,
    price_per_hour: float | None = None,
    pairs: Path | None = None,
    allow_weaker_isolation: bool = False,
    answers: bool = False,
    tell: Tell = lambda what, done, total: None,
    where: Place | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Run quality suites over a profile in this process, or over the server at `url`.

    `against` is another profile or URL, the incumbent: it answers the same items, and each suite gets a verdict whether
    the engine is not worse by more than `margin` (by default the metric's own). Without `seed` the items are fresh, and
    the document says which they were. `sampling` and `thinking` hold fields of `types.Sampling` and `types.Thinking`;
    what is left out is as the profile says. `answers` adds every item to the document.

    Returns `{"seed", "suites": [{…, "cost", "verdict", "against"}]}`, ready for JSON.

    Raises:
        NotFound, ProfileError, Invalid: a name, a profile, a suite or an address that cannot be.
        Unsupported: the engine cannot do what a suite needs, or the sandbox cannot hold what it must run.
        MissingExtra: a suite needs a package that is not installed.
    """
    from temper.measure.quality import kinds
    from temper.measure.quality.evaluate import Settings
    from temper.types import Sampling, Thinking

    here = where or place()
    for name in suites:
        if name not in kinds.KINDS:
            kinds.find(name)
    settings = Settings(Sampling(**(sampling or {})), max_tokens, Thinking(**(thinking or {})), concurrency)
    seed = secrets.randbits(31) if seed is None else seed
    plan = _Plan(seed, count, margin, settings, price_per_hour, pairs, allow_weaker_isolation, answers, tell)

    async def work() -> dict[str, Any]:
        async with AsyncExitStack() as stack:
            subject = await stack.enter_async_context(_opened(named, url, model, here, overrides))
            other = None
            if against is not None:
                other = await stack.enter_async_context(_opened(against, None, None, here, {}))
            return {"seed": seed, "suites": [await plan.one(name, subject, other) for name in suites]}

    return asyncio.run(work())


def evaluate_lm_eval(
    named: str | Path | Profile = DEFAULT_PROFILE,
    *,
    tasks: Sequence[str],
    url: str | None = None,
    model: str | None = None,
    include: Path | None = None,
    limit: int | None = None,
    seed: int | None = None,
    concurrency: int = 4,
    where: Place | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Run tasks of lm-eval against the server at `url`, or against one that serves the profile for as long as it takes.

    Raises:
        MissingExtra: the extra `evals` is not installed.
        NotFound, EngineFailure: no such task, or lm-eval gave up.
    """
    from temper.measure import subjects
    from temper.measure.quality import lm_eval

    here = where or place()
    seed = secrets.randbits(31) if seed is None else seed

    async def work() -> dict[str, Any]:
        if url is not None:
            opening = subjects.at_url(url, model, here.api_key)
        else:
            chosen = profile(named, where=here, **overrides)
            fetch_all(chosen, here)
            fetched = lambda source: fetch(source, here, None).path  # noqa: E731
            opening = subjects.side_by_side(("native",), chosen, here.home / "peers", fetched)
        async with opening as opened:
            if not opened.subjects:
                raise Invalid(f"the profile cannot be served for lm-eval: {opened.missing[0]['reason']}", param="url")
            subject = opened.subjects[0]
            assert subject.remote is not None
            return await asyncio.to_thread(
                lm_eval.run,
                subject.remote[1].url,
                tasks,
                model=subject.engine.capabilities().model,
                seed=seed,
                limit=limit,
                include=include,
                concurrency=concurrency,
            )

    return asyncio.run(work())


def ratings(*, where: Place | None = None) -> list[dict[str, Any]]:
    """What people's ratings come to, by model and version; see `server.feedback`."""
    from temper.measure.quality.ratings import FILE, Ratings

    path = (where or place()).home / FILE
    return Ratings(path).summary() if path.exists() else []


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is asked of each suite."""

    seed: int
    count: int
    margin: float | None
    settings: Settings
    price_per_hour: float | None
    pairs: Path | None
    allow_weaker_isolation: bool
    answers: bool
    tell: Tell

    async def one(self, name: str, subject: Subject, other: Subject | None) -> dict[str, Any]:
        """One suite over the subject, and over the other where there is one and the suite does not ask it itself."""
        from temper.measure.quality import kinds
        from temper.measure.quality.compare import compare

        ours, found = await self._reported(name, subject, other)
        if other is not None and not kinds.KINDS[name].compares:
            theirs, against = await self._reported(name, other, None)
            found["against"] = against
            found["verdict"] = compare(theirs, ours, margin=self.margin).document()
        return found

    async def _reported(self, name: str, subject: Subject, other: Subject | None) -> tuple[Report, dict[str, Any]]:
        from temper.measure.cost import Meter, cost
        from temper.measure.quality import kinds
        from temper.measure.quality.evaluate import evaluate

        needs = kinds.Needs(
            subject.engine, None if other is None else other.engine, self.pairs, self.allow_weaker_isolation
        )
        suite = kinds.find(name, needs)
        with Meter(subject.pids) as meter:
            report = await evaluate(
                subject.engine, suite, self.seed, self.count, settings=self.settings, tell=self.tell
            )
        primary = report.primary
        shares = primary.metric.kind == "share" and primary.value is not None
        document = report.document(answers=self.answers)
        document["cost"] = cost(
            meter.spent,
            tokens=document["tokens"]["completion"],
            answers=report.count - report.num_failed,
            correct=(primary.value or 0.0) * primary.num_items if shares else None,
            price_per_hour=self.price_per_hour,
        )
        return report, document


@asynccontextmanager
async def _opened(
    named: str | Path | Profile, url: str | None, model: str | None, here: Place, overrides: Mapping[str, Any]
) -> AsyncIterator[Subject]:
    from temper.measure import subjects

    if isinstance(named, str) and named.startswith(("http://", "https://")):
        address, _, part = named.partition("#")
        url, model = address, part or None
    if url is not None:
        opening = subjects.at_url(url, model, here.api_key)
    else:
        chosen = profile(named, where=here, **overrides)
        fetch_all(chosen, here)
        opening = subjects.in_process(build(chosen, here))
    async with opening as opened:
        yield opened.subjects[0]
