"""`temper bench` proper: one or several engines under one or several loads, round by round, as plain data.

Several engines take turns (ABBA) on the same prompts, so that a machine that slows down slows all of them. It
starts no server and prints nothing; who is measured is decided by the composition root.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from temper.asking import collect
from temper.engines.base import Engine
from temper.engines.openai import Endpoint
from temper.errors import Unsupported
from temper.measure import latency
from temper.measure.loadgen import Run, drive
from temper.measure.memory import MemoryWatch
from temper.measure.processes import drive_in_processes
from temper.measure.stats.ratio import paired
from temper.measure.workload.plan import Session, plan
from temper.measure.workload.schema import Closed, Open, Synthetic, Workload
from temper.measure.workload.text import Wording, wording_for
from temper.profile import schema
from temper.types import Request

Tell = Callable[[str], None]
"""Told in words what is being measured now."""

WARMUP_USERS = 8
PROBE_SEED = 0x5EED
"""Added to the seed for the one request that asks what an engine takes, so that it warms no measured prompt."""

METRICS: dict[str, str] = {
    "output_tokens_per_s": "higher",
    "prefill_tokens_per_s": "higher",
    "ttft_ms.p50": "lower",
    "itl_ms.p50": "lower",
    "e2e_ms.p50": "lower",
    "rss_bytes": "lower",
}
"""What engines are compared by, and which way is better."""


@dataclass(slots=True)
class Subject:
    """An engine to measure, started."""

    name: str
    engine: Engine
    pids: tuple[int, ...] = ()
    """The server's root processes, where they are known."""
    remote: tuple[schema.OpenAIEngine, Endpoint] | None = None
    """How other processes reach it: what several processes of load need."""
    notes: list[str] = field(default_factory=list)
    quality: Mapping[str, Any] | None = None


async def bench(
    subjects: Sequence[Subject],
    variants: Sequence[Workload],
    *,
    rounds: int = 1,
    num_processes: int = 1,
    tell: Tell = lambda text: None,
) -> dict[str, Any]:
    """Measure all `subjects` under all `variants` of a workload, `rounds` times.

    Returns `definitions`, `workload`, `prompts`, `runs` and `ratios` (every subject against the first), ready for
    JSON.

    Raises:
        Invalid: the workload cannot be planned.
        TemperError: a subject does not answer at all.
    """
    adapted = [await adapt(variant, subjects) for variant in variants]
    wording = await wording_for(subjects[0].engine) if len(subjects) == 1 else Wording()
    first = 0
    if adapted[0].warmup:
        sessions = plan(adapted[0], wording, count=adapted[0].warmup)
        first = sessions[-1].index + 1
        for subject in subjects:
            tell(f"{subject.name}: warming up with {adapted[0].warmup} requests")
            users = min(len(sessions), WARMUP_USERS)
            await drive(subject.engine, sessions, concurrency=users, timeout_s=adapted[0].timeout_s)
    runs: list[dict[str, Any]] = []
    for number in range(rounds):
        order = subjects if number % 2 == 0 else list(reversed(subjects))
        for workload in adapted:
            sessions = plan(workload, wording, first=first)
            for subject in order:
                tell(f"round {number + 1} of {rounds}: {subject.name}, {_load_text(workload)}")
                load = _Load(workload, wording, first, sessions, number)
                runs.append(await _one(subject, load, num_processes))
            if workload.content.kind in ("synthetic", "chats"):
                first = sessions[-1].index + 1  # a trace is finite: its rounds repeat it
    return {
        "definitions": latency.DEFINITIONS,
        "workload": variants[0].model_dump(mode="json"),
        "prompts": "token ids" if wording.ids is not None else "words",
        "runs": runs,
        "ratios": ratios([subject.name for subject in subjects], runs),
    }


@dataclass(frozen=True, slots=True)
class _Load:
    """What every subject gets in one round of one variant."""

    workload: Workload
    wording: Wording
    first: int
    sessions: Sequence[Session]
    number: int
    """Of the round."""


async def _one(subject: Subject, load: _Load, num_processes: int) -> dict[str, Any]:
    workload = load.workload
    arrivals = workload.arrivals
    concurrency = arrivals.concurrency if isinstance(arrivals, Closed) else None
    async with MemoryWatch(subject.pids) as memory:
        run = await _drive(subject, load, concurrency, num_processes)
    found = latency.figures(run.outcomes, workload.slo)
    saturation = run.saturation
    how: dict[str, Any] = {"concurrency": concurrency} if concurrency is not None else {}
    if isinstance(arrivals, Open):
        how["rate"] = arrivals.rate
    return {
        "engine": subject.name,
        "model": subject.engine.capabilities().model,
        **how,
        "round": load.number,
        **found,
        "rss_bytes": memory.peak_rss_bytes,
        "pss_bytes": memory.pss_bytes,
        "generator": {
            **{key: value for key, value in asdict(saturation).items() if key != "reasons"},
            "processes": num_processes,
            "is_bottleneck": saturation.is_bottleneck,
            "reasons": list(saturation.reasons),
        },
        "notes": [*subject.notes, *_cache_note(workload, found["cached_tokens"])],
        "distribution": latency.distribution(run.outcomes),
    }


def _cache_note(workload: Workload, cached_tokens: int) -> list[str]:
    content = workload.content
    if cached_tokens and isinstance(content, Synthetic) and not content.shared_prefix_tokens:
        return [
            f"{cached_tokens} prompt tokens came from a prefix cache though no prompts are alike: the server has seen "
            "this seed before; take another --seed"
        ]
    return []


async def _drive(subject: Subject, load: _Load, concurrency: int | None, num_processes: int) -> Run:
    if num_processes > 1 and subject.remote is not None:
        config, endpoint = subject.remote
        return await drive_in_processes(
            config, endpoint, load.workload, load.wording, first=load.first, num_processes=num_processes
        )
    timeout_s = load.workload.timeout_s
    return await drive(subject.engine, load.sessions, concurrency=concurrency, timeout_s=timeout_s)


async def adapt(workload: Workload, subjects: Sequence[Subject]) -> Workload:
    """The workload that every subject takes: the same for all of them, and what was given up is noted.

    One token is asked of each, so that an engine that cannot answer at all is found before the load.
    """
    for subject in subjects:
        for _ in range(3):
            other = workload.model_copy(update={"seed": workload.seed + PROBE_SEED})
            request = plan(other, Wording(), count=1)[0].requests[0]
            try:
                await collect(subject.engine.generate(_shortened(request)))
                break
            except Unsupported as error:
                workload, note = without(workload, error)
                for noted in subjects:
                    if note not in noted.notes:
                        noted.notes.append(note)
    return workload


def _shortened(request: Request) -> Request:
    return replace(request, id="bench-probe", limits=replace(request.limits, max_tokens=1))


def without(workload: Workload, error: Unsupported) -> tuple[Workload, str]:
    """The workload without what an engine just refused, and what was given up in words.

    Raises:
        Unsupported: it is nothing that a workload can do without.
    """
    if error.param == "ignore_eos" and workload.ignore_eos:
        change: dict[str, Any] = {"ignore_eos": False}
        note = "answers end where the model ends them: an engine here cannot ignore the end of text"
    elif error.param == "prompt" and isinstance(workload.content, Synthetic) and not workload.content.as_chat:
        change = {"content": workload.content.model_copy(update={"as_chat": True})}
        note = "prompts are sent as chats: an engine here takes no bare prompts"
    else:
        raise error
    return workload.model_copy(update=change), note


def ratios(names: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every engine against the first, by load and metric, over the rounds in which both have the figure."""
    found = []
    base = names[0]
    loads = list(dict.fromkeys((run.get("concurrency"), run.get("rate")) for run in runs))
    for name in names[1:]:
        for load in loads:
            mine = [run for run in runs if (run.get("concurrency"), run.get("rate")) == load]
            for metric, better in METRICS.items():
                by_round = {
                    (run["engine"], run["round"]): value for run in mine if (value := figure(run, metric)) is not None
                }
                numbers = sorted(n for engine, n in by_round if engine == name and (base, n) in by_round)
                pair = paired([by_round[base, n] for n in numbers], [by_round[name, n] for n in numbers])
                if pair is not None:
                    found.append(
                        {"engine": name, "against": base, "concurrency": load[0], "rate": load[1], "metric": metric,
                         "better": better, **asdict(pair)}
                    )  # fmt: skip
    return found


def figure(run: Mapping[str, Any], metric: str) -> float | None:
    """A figure of a run by dotted name."""
    value: Any = run
    for part in metric.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def _load_text(workload: Workload) -> str:
    arrivals = workload.arrivals
    if isinstance(arrivals, Closed):
        return f"concurrency {arrivals.concurrency}"
    return f"{arrivals.rate:g} requests/s" if isinstance(arrivals, Open) else "arrivals as recorded"
