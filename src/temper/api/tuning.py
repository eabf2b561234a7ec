"""The verb `tune`: a study from names to a proposal, which is kept as a version."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper import machine
from temper.api.environment import Place, place
from temper.api.profiles import DEFAULT_PROFILE, profile
from temper.api.running import build, fetch_all
from temper.errors import Invalid
from temper.profile.schema import NativeEngine, Profile, TorchEngine

if TYPE_CHECKING:
    from temper.measure.workload.schema import Workload
    from temper.tuner.evaluate import Evaluator
    from temper.tuner.ledger import Ledger
    from temper.tuner.live import MakeSuite
    from temper.tuner.model import Facts, Model
    from temper.tuner.plan import Plan
    from temper.tuner.search import Progress
    from temper.tuner.space import Space, Value

DEFAULT_BUDGET = "30min"
SCORING = ("native", "torch", "openvino")
"""Kinds of engine that can say how likely a text is."""


def tune(
    workload: str | Workload | None = None,
    named: str | Path | Profile = DEFAULT_PROFILE,
    *,
    also: Sequence[str | Path | Profile] = (),
    objective: str = "",
    budget: str = DEFAULT_BUDGET,
    slo: bool = True,
    suite: str = "auto",
    quality_margin: float | None = None,
    knobs: Sequence[str] = (),
    without: Sequence[str] = (),
    ladders: Mapping[str, Sequence[Value]] | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    price_per_hour: float = 1.0,
    rehearse: Path | None = None,
    resume: str | None = None,
    keep: bool = True,
    tell: Callable[[Progress], None] = lambda progress: None,
    where: Place | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Search for a better profile than `named` under `workload`, and prove it; returns the study's report.

    `objective` is said in words (`"p99 -20 %"`, `"throughput, ttft p90 < 300 ms"`), `budget` as `"30min"` or
    `"40 trials"`; `also` are further engines to choose from. `knobs`, `without` and `ladders` name tunable fields,
    `settings` are fields of `tuner.settings.Settings`. `suite` guards the quality: a name of `measure.quality.kinds`,
    `none`, or `auto` (perplexity where every engine can score a text; sums where answers are the objective). With
    `resume` (an id, its beginning, or `"last"`) all else comes from the ledger. `keep` stores a winner as a version.

    Raises:
        NotFound, ProfileError, Invalid: a name, a profile, a goal or a budget that cannot be.
        EngineFailure: the incumbent itself cannot be measured.
        Rejected: another process runs the study that is to be resumed.
    """
    from temper.tuner.ledger import FILE, Ledger
    from temper.tuner.plan import plan

    here = where or place()
    if resume is not None:
        ledger = Ledger(here.home / FILE, create=False)
        entry = ledger.find(resume)
        if entry.state == "done" and entry.document is not None:
            return dict(entry.document)
        return _run(entry.id, plan(entry.plan), ledger, here, keep, tell)
    if workload is None:
        raise Invalid("a study needs a workload", param="workload", hint="name a preset or a .toml file")
    wanted = _plan(
        workload,
        [(str(named), profile(named, **overrides)), *((str(name), profile(name)) for name in also)],
        objective=objective,
        slo=slo,
        suite=suite,
        quality_margin=quality_margin,
        only=tuple(knobs),
        without=tuple(without),
        ladders=dict(ladders or {}),
        price_per_hour=price_per_hour,
        rehearse=None if rehearse is None else str(rehearse),
        settings=_settings(budget, seed, settings or {}),
    )
    wanted.space(), wanted.goal()  # what cannot be is said before anything is written or fetched
    id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    ledger = Ledger(here.home / FILE)
    ledger.begin(id, wanted.document())
    return _run(id, wanted, ledger, here, keep, tell)


def _settings(budget: str, seed: int, given: Mapping[str, Any]) -> Any:
    from temper.tuner.settings import Settings, parse_budget

    try:
        return replace(Settings(parse_budget(budget), seed=seed), **given)
    except TypeError as error:
        raise Invalid(f"a study has no such setting: {error}", param="settings") from None


def _plan(workload: str | Workload, profiles: list[tuple[str, Profile]], **fields: Any) -> Plan:
    from temper.measure.workload import schema
    from temper.tuner.plan import ANSWER_METRICS, Plan

    named: list[tuple[str, Profile]] = []
    for name, chosen in profiles:
        short = Path(name).stem if len(name) < 80 and not name.startswith("schema_version") else chosen.engine.kind
        named.append((short if short not in dict(named) else f"{short}-{len(named) + 1}", chosen))
    found = schema.resolve(workload) if isinstance(workload, str) else workload
    most = {"threads": max(1, int(machine.usable_cores()))}
    wanted = Plan(found, tuple(named), most=most, **fields)
    limits = found.slo
    if wanted.goal().objective.metric == "goodput_per_s" and limits.ttft_ms is limits.tpot_ms is limits.e2e_ms is None:
        raise Invalid(
            "goodput counts answers within an SLO, and this workload states none",
            param="objective",
            hint="give the workload a [slo] with ttft_ms, tpot_ms or e2e_ms",
        )
    about_answers = wanted.goal().objective.metric in ANSWER_METRICS
    return replace(wanted, suite=_checked_suite(fields["suite"], profiles, about_answers))


def _run(
    id: str, wanted: Plan, ledger: Ledger, here: Place, keep: bool, tell: Callable[[Progress], None]
) -> dict[str, Any]:
    from temper.tuner.run import run
    from temper.tuner.search import Search

    space = wanted.space()
    evaluator, model = _evaluator(wanted, space, here)
    search = Search(
        id=id,
        space=space,
        goal=wanted.goal(),
        settings=wanted.settings,
        evaluator=evaluator,
        ledger=ledger,
        model=model,
        with_quality=_asks_for_quality(wanted),
        tell=tell,
    )
    try:
        found = asyncio.run(run(search))
        if keep and wanted.rehearse is None and found["winner"] is not None:
            found = _kept(found, here)
            ledger.write(id, found, "done")
        return found
    finally:
        ledger.close()


def _asks_for_quality(wanted: Plan) -> bool:
    if wanted.rehearse is not None and wanted.rehearse.endswith(".toml"):
        return "quality" in _scenario(wanted.rehearse).figures
    return wanted.rehearse is None and wanted.suite is not None


def _evaluator(wanted: Plan, space: Space, here: Place) -> tuple[Evaluator, Model | None]:
    from temper.tuner.live import LiveEvaluator, LoadPlan
    from temper.tuner.model import Model

    if wanted.rehearse is not None:
        from temper.tuner.simulated import InventedEvaluator, recording

        if wanted.rehearse.endswith(".toml"):
            return InventedEvaluator(_scenario(wanted.rehearse), space.incumbent, wanted.settings.seed), None
        return recording(Path(wanted.rehearse)), None
    for _, chosen in wanted.profiles:
        fetch_all(chosen, here)
    facts = {name: _facts(chosen, here) for name, chosen in wanted.profiles}
    memory_bytes = machine.available_memory_bytes()
    model = Model(space, wanted.workload, facts, memory_bytes)
    base = model.memory(space.incumbent)
    evaluator = LiveEvaluator(
        space,
        lambda chosen: build(chosen, here),
        LoadPlan(wanted.workload, wanted.goal().limits, wanted.price_per_hour),
        suite=None if wanted.suite is None else _suite(wanted.suite),
        together=base is None or 2 * base < memory_bytes,
    )
    return evaluator, model


def _suite(name: str) -> MakeSuite:
    """Makes the suite called `name` for a candidate beside the incumbent."""
    from temper.measure.quality.kinds import Needs, find

    return lambda engine, incumbent: find(name, Needs(engine=engine, against=incumbent))


def _checked_suite(name: str, profiles: Sequence[tuple[str, Profile]], about_answers: bool) -> str | None:
    """The suite by its name; None for no quality at all.

    Raises:
        NotFound: there is none of this name.
        Invalid: the objective is about answers, and this suite has no right ones.
    """
    from temper.measure.quality.kinds import KINDS, find

    if about_answers:
        name = "arithmetic" if name == "auto" else name
        if name == "none" or (name in KINDS and not KINDS[name].generated):
            there = ", ".join(known for known, kind in KINDS.items() if kind.generated)
            raise Invalid("this objective counts right answers", param="suite", hint=f"take one of {there}")
    if name == "none":
        return None
    if name == "auto":
        return "perplexity" if all(chosen.engine.kind in SCORING for _, chosen in profiles) else None
    if name not in KINDS:
        find(name)
    return name


def _scenario(path: str) -> Any:
    from temper.errors import NotFound
    from temper.tuner.simulated import scenario

    try:
        return scenario(Path(path).read_text("utf-8"), path)
    except FileNotFoundError:
        raise NotFound(f"there is no scenario {path}", param="rehearse") from None


def _facts(chosen: Profile, here: Place) -> Facts | None:
    """What the analytic model wants to know of a checkpoint; None for servers that are not ours."""
    from temper.models.checkpoint import open_checkpoint
    from temper.tuner.model import Facts

    engine = chosen.engine
    if not isinstance(engine, NativeEngine | TorchEngine):
        return None
    found = open_checkpoint(engine.checkpoint, here.cache_dir, None, here.hub_endpoint)
    num_weights = 0
    for tensor in found.tensors.values():
        count = 1
        for size in tensor.shape:
            count *= size
        num_weights += count
    stored = sum(tensor.num_bytes for tensor in found.tensors.values())
    facts = Facts(num_weights, stored, found.config.num_layers, found.config.kv_width)
    found.release()
    return facts


def _kept(found: dict[str, Any], here: Place) -> dict[str, Any]:
    """The report with the ids under which incumbent and winner are versions now."""
    from temper.api.store import open_store
    from temper.api.versions import add_version

    incumbent = add_version(Profile.model_validate(found["incumbent"]["profile"]), where=here)
    winner = add_version(
        Profile.model_validate(found["winner"]["profile"]),
        parent=incumbent.id,
        origin="study",
        source=found["study"],
        note=found["reason"],
        where=here,
    )
    names = ("study", "verdict", "reason", "metric", "effect", "interval", "confidence", "num_trials", "story")
    with open_store(here) as store:
        store.versions.witness(winner.id, "study", found["verdict"], {name: found[name] for name in names})
    return {
        **found,
        "incumbent": {**found["incumbent"], "version": incumbent.id},
        "winner": {**found["winner"], "version": winner.id},
    }


def study_page(found: Mapping[str, Any]) -> str:
    """A study's report as one HTML file that needs no network."""
    from temper.dashboard.studies import standalone

    return standalone(found)
