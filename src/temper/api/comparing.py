"""The verb that compares two deployments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.api.environment import Place, place
from temper.api.profiles import profile
from temper.api.running import build, fetch_all
from temper.errors import Invalid
from temper.profile import store
from temper.profile.schema import FakeEngine, Profile

if TYPE_CHECKING:
    from temper.engines.base import Engine
    from temper.measure.ab import Design, Opening, Quality
    from temper.measure.stats.verdict import Verdict
    from temper.measure.workload.options import Load
    from temper.measure.workload.schema import Workload

CONCURRENCY = 4
OUTPUT_TOKENS = 64
"""The load where none is named: enough that batching counts, and over in minutes on a small machine."""
WARMUP = 8
STARTS = 8
"""Units where each is an engine start with two blocks of each arm."""


def ab(
    a: str | Path | Profile,
    b: str | Path | Profile,
    *,
    metric: str | None = None,
    guardrails: Mapping[str, float | None] | None = None,
    indifference: float | None = None,
    confidence: float | None = None,
    units: int | None = None,
    requests: int | None = None,
    restart: bool | None = None,
    full_length: bool = False,
    suites: Mapping[str, int] | None = None,
    quality: Sequence[Quality] = (),
    load: Mapping[str, Any] | None = None,
    changes_a: Mapping[str, Any] | None = None,
    changes_b: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] = lambda text: None,
    where: Place | None = None,
) -> dict[str, Any]:
    """Whether B is better than A: the same requests to both in turns, judged by `measure.ab_verdict`.

    An arm is a profile by any name (`profile`), `fake:SCRIPT`, or the URL of a server, with `#MODEL` where it has
    several; `changes_a` and `changes_b` are profile fields, as `profile` takes them. `guardrails` change the margins
    of `ab_verdict.GUARDRAILS` by metric, None leaves one out. Engines are started anew for each unit where the
    arms differ in more than hot fields (`restart` decides otherwise); a server at a URL is never restarted.
    Answers end where the model ends them, so that a shift of lengths shows, unless `full_length`.

    `suites` names quality suites and how many items of each both arms are asked at the end, the same ones; `quality`
    are judges of your own, `async (engine_a, engine_b) -> Verdict`. Each is one more guardrail. The result is
    `ab_verdict.document`, with `differences`: the fields in which two profiles differ.

    Raises:
        NotFound, ProfileError, Invalid: a name, a profile, a metric or a load that cannot be.
        EngineFailure: an arm does not start, or does not answer.
    """
    from temper.measure import ab as running
    from temper.measure import ab_verdict as judging
    from temper.measure.workload.options import Load

    here = where or place()
    arms = [_arm(a, changes_a or {}, here, "a"), _arm(b, changes_b or {}, here, "b")]
    target = metric or judging.TARGET
    margins = {**judging.GUARDRAILS, **(guardrails or {})}
    kept = {name: margin for name, margin in margins.items() if margin is not None}
    for name in (target, *kept):
        judging.direction(name)
    workload = _one_variant(Load(**_defaults(load or {})))
    if not full_length:
        workload = workload.model_copy(update={"ignore_eos": False})
    design = _design(arms, units, requests, restart)
    for arm in arms:
        if arm.profile is not None:
            fetch_all(arm.profile, here)
    judges = [*(_suite(name, count, workload.seed) for name, count in (suites or {}).items()), *quality]
    measured = asyncio.run(running.compare(arms[0].open, arms[1].open, workload, design, tell=tell, quality=judges))
    verdict = judging.judge(
        measured,
        target=target,
        guardrails=kept,
        indifference=judging.INDIFFERENCE if indifference is None else indifference,
        confidence=judging.CONFIDENCE if confidence is None else confidence,
    )
    found = judging.document(measured, verdict, {"a": arms[0].name, "b": arms[1].name})
    return {**found, "differences": _differences(arms)}


@dataclass(frozen=True, slots=True)
class _Arm:
    name: str
    open: Opening
    profile: Profile | None
    """None: a server at a URL."""


def _arm(named: str | Path | Profile, changes: Mapping[str, Any], here: Place, side: str) -> _Arm:
    from temper.measure import subjects

    text = str(named) if not isinstance(named, Profile) else named.engine.kind
    if text.startswith(("http://", "https://")):
        if changes:
            raise Invalid(f"'{text}' is measured as it is: fields of a server cannot be changed", param=side)
        url, _, model = text.partition("#")
        return _Arm(text, lambda: subjects.at_url(url, model or None, here.api_key), None)
    if text.startswith("fake:"):
        named = Profile(engine=FakeEngine(script=text.removeprefix("fake:")))
    chosen = profile(named, where=here, **changes)
    shown = " ".join([text, *(f"{field}={value}" for field, value in changes.items())])
    return _Arm(shown, lambda: subjects.in_process(build(chosen, here)), chosen)


def _suite(name: str, count: int, seed: int) -> Quality:
    """Both arms asked the same items of a quality suite."""
    from temper.measure.quality import kinds
    from temper.measure.quality.compare import compare
    from temper.measure.quality.evaluate import evaluate

    suite = kinds.find(name)

    async def judge(a: Engine, b: Engine) -> Verdict:
        return compare(await evaluate(a, suite, seed, count), await evaluate(b, suite, seed, count))

    return judge


def _defaults(load: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in load.items() if value not in (None, ())}
    if "workload" in given:
        return given
    if "rate" not in given:
        given.setdefault("concurrency", (CONCURRENCY,))
    return {"output_tokens": OUTPUT_TOKENS, "warmup": WARMUP, **given}


def _one_variant(load: Load) -> Workload:
    variants = load.variants()
    if len(variants) != 1:
        raise Invalid(f"an A/B test has one load, not {len(variants)}", param="concurrency")
    return variants[0]


def _design(arms: Sequence[_Arm], units: int | None, requests: int | None, restart: bool | None) -> Design:
    from temper.measure.ab import Design, needs_restart

    a, b = (arm.profile for arm in arms)
    if restart is None:
        restart = a is not None and b is not None and bool(needs_restart(a, b))
    given = {"num_units": units or (STARTS if restart else None), "requests": requests}
    return Design(restart=restart, **{name: value for name, value in given.items() if value is not None})


def _differences(arms: Sequence[_Arm]) -> list[dict[str, Any]] | None:
    """None where an arm's profile is not known."""
    a, b = (arm.profile for arm in arms)
    if a is None or b is None:
        return None
    return [{"field": change.path, "a": change.before, "b": change.after} for change in store.diff(a, b)]
