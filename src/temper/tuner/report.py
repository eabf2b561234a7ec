"""The report of a study: what was asked, what was found, what is proposed, and the story of how, as plain data.

It decides the study's verdict from the finalists' and finds, where limits cannot be kept, the nearest point and the
limit that binds. It draws nothing: `drawing` and the page do.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from temper.measure.stats.verdict import Outcome, Verdict
from temper.profile import store
from temper.tuner import judging
from temper.tuner.confirm import Finalist
from temper.tuner.effects import Effects, fit
from temper.tuner.evaluate import TROUBLES
from temper.tuner.objective import METRICS
from temper.tuner.search import Search
from temper.tuner.trial import Trial

SELF_TEST_CONFIDENCE = 0.99


def report(search: Search, finalists: Sequence[Finalist]) -> dict[str, Any]:
    """The document of a finished study."""
    goal, objective = search.goal, search.goal.objective
    winner = next((finalist for finalist in finalists if finalist.outcome == "pass"), None)
    shown = winner or (finalists[0] if finalists else None)
    target = shown.target if shown is not None else None
    nearest = _nearest(search) if goal.limits and not search.feasible() else None
    verdict, reason = _verdict(search, finalists, winner, nearest)
    evidence = {
        "self_test": _self_test(search),
        "finalists": [_finalist(search, finalist) for finalist in finalists],
        "arms": _arms(search),
        "troubles": dict(Counter(trial.trouble.kind for trial in search.trials if trial.trouble is not None)),
        "noise": search.noise,
        "model": None if search.model is None else search.model.document(),
        "importance": _importance(search),
        "nearest": nearest,
        "spent_s": round(search.world.spent_s, 1),
        "measured": dict(search.evaluator.describe()),
        "settings": search.settings.document(),
    }
    found: dict[str, Any] = finite({
        "study": search.id,
        "incumbent": _side(search, search.trials[0]),
        "winner": None if winner is None else _side(search, winner.trial),
        "verdict": verdict,
        "reason": reason,
        "metric": objective.metric,
        "meaning": METRICS[objective.metric][1],
        "better": objective.better,
        "effect": None if target is None else target.effect,
        "interval": None if target is None else target.interval,
        "confidence": 1 - search.settings.alpha,
        "wanted": objective.wanted,
        "num_trials": len(search.trials) - 1,
        "goal": goal.document(),
        "space": search.space.document(),
        "evidence": evidence,
        "trials": [trial.document(goal, search.length_bound) for trial in search.trials],
        "story": _story(search, finalists, winner, nearest, reason),
    })  # fmt: skip
    return found


def _verdict(
    search: Search, finalists: Sequence[Finalist], winner: Finalist | None, nearest: Mapping[str, Any] | None
) -> tuple[Outcome, str]:
    wanted = search.goal.objective.wanted
    if nearest is not None:
        return "fail", f"no point keeps all limits; {nearest['binding']} binds: {nearest['text']}"
    if winner is not None:
        assert winner.target is not None
        if wanted is not None and not winner.rescues:
            return reaches(winner.target, wanted)
        if winner.rescues:
            return "pass", f"trial {winner.trial.number} keeps a limit that the incumbent breaks"
        return "pass", f"trial {winner.trial.number} is better, and worse in nothing that was asked"
    if not finalists:
        return "inconclusive", "nothing that was tried looked better than what is there"
    outcomes = {finalist.outcome for finalist in finalists}
    best = finalists[0]
    return ("fail" if outcomes == {"fail"} else "inconclusive"), f"trial {best.trial.number}: {why_not(best)}"


def reaches(target: Verdict, wanted: float) -> tuple[Outcome, str]:
    """Whether the change that was asked for is proven: its whole interval lies beyond."""
    assert target.interval is not None
    ends = target.interval if wanted > 0 else (-target.interval[1], -target.interval[0])
    low, high = ends
    told = f"{target.interval[0]:+.1%} … {target.interval[1]:+.1%} against {wanted:+.0%} asked for"
    if low >= abs(wanted):
        return "pass", f"better by what was asked for: {told}"
    if high < abs(wanted):
        return "fail", f"better, but not by what was asked for: {told}"
    return "inconclusive", f"better, and whether by what was asked for cannot be told yet: {told}"


def why_not(finalist: Finalist) -> str:
    """Why a finalist is not proposed."""
    if finalist.trouble is not None:
        return f"{finalist.trouble.kind} while it was confirmed: {finalist.trouble.reason}"
    assert finalist.target is not None
    lacking = [guard for guard in finalist.guardrails if guard.verdict == "fail"]
    lacking += [guard for guard in finalist.guardrails if guard.verdict == "inconclusive"]
    if finalist.target.verdict == "pass" and lacking:
        return f"better, but {lacking[0].metric}: {lacking[0].reason}"
    return finalist.target.reason


def _nearest(search: Search) -> dict[str, Any] | None:
    """The measured point that exceeds its worst limit by the least, and which limit that is."""
    measured = [trial for trial in search.trials if trial.gains]
    if not measured:
        return None
    limits = search.goal.limits

    def worst(trial: Trial) -> float:
        return max(trial.excess(limit) for limit in limits)

    trial = min(measured, key=worst)
    binding = max(limits, key=trial.excess)
    excess = trial.excess(binding)
    if excess <= 0:  # the limits are kept; quality, length or trouble stand in the way
        kept = trial.constraints(search.goal, search.length_bound)
        name = max(kept, key=lambda key: kept[key])
        return {"trial": trial.number, "binding": name, "excess": kept[name], "text": trial.reason or name}
    return {
        "trial": trial.number,
        "binding": binding.name,
        "excess": excess,
        "text": f"the nearest is trial {trial.number}, which is {excess:.1%} beyond {binding.value:g}",
        **_side(search, trial),
    }


def _side(search: Search, trial: Trial) -> dict[str, Any]:
    profile = search.space.profile(trial.point)
    changes = store.diff(search.space.profile(search.space.incumbent), profile)
    return {
        "trial": trial.number,
        "branch": trial.point.branch,
        "values": dict(trial.point.values),
        "changes": [{"path": change.path, "before": change.before, "after": change.after} for change in changes],
        "profile": profile.model_dump(mode="json"),
        "toml": store.dumps(profile, only_changes=True),
    }


def _self_test(search: Search) -> dict[str, Any]:
    """The incumbent against itself: an interval that does not hold 0 says that measuring is biased."""
    found = judging.estimate(search.self_test, SELF_TEST_CONFIDENCE)
    low, high = found.interval or (None, None)
    passed = None if low is None or high is None else low <= 0 <= high
    return {
        "gains": list(search.self_test),
        "interval": None if low is None else [low, high],
        "confidence": SELF_TEST_CONFIDENCE,
        "verdict": "inconclusive" if passed is None else "pass" if passed else "fail",
    }


def _finalist(search: Search, finalist: Finalist) -> dict[str, Any]:
    return {
        **_side(search, finalist.trial),
        "outcome": finalist.outcome,
        "target": None if finalist.target is None else finalist.target.document(),
        "guardrails": [guardrail.document() for guardrail in finalist.guardrails],
        "rescues": finalist.rescues,
        "why_not": None if finalist.outcome == "pass" else why_not(finalist),
        "search_effect": search.goal.objective.effect(finalist.trial.gain or 0.0),
    }


def _arms(search: Search) -> dict[str, Any]:
    """What each arm of the search found: the model's proposals beside the control's."""
    found: dict[str, Any] = {}
    for arm in ("tpe", "polish", "control"):
        mine = [trial for trial in search.trials if trial.arm == arm]
        feasible = [trial for trial in search.feasible() if trial.arm == arm]
        gains = [trial.gain for trial in mine if trial.gain is not None]
        effect = search.goal.objective.effect
        found[arm] = {
            "num_trials": len(mine),
            "num_feasible": len(feasible),
            "best_effect": effect(feasible[0].gain or 0.0) if feasible else None,
            "best_trial": feasible[0].number if feasible else None,
            "median_effect": effect(statistics.median(gains)) if gains else None,
        }
    return found


def _importance(search: Search) -> dict[str, float]:
    """Shares of the branch that the best trial is in."""
    leaders = search.feasible()
    name = leaders[0].point.branch if leaders else search.space.branches[0].name
    return effects_of(search, name).importance()


def effects_of(search: Search, branch: str) -> Effects:
    """What each knob of a branch does, by everything measured so far."""
    measured = [(trial.point, trial.gain) for trial in search.trials if trial.gain is not None]
    return fit(search.space.branch(branch), measured)


def _story(
    search: Search,
    finalists: Sequence[Finalist],
    winner: Finalist | None,
    nearest: Mapping[str, Any] | None,
    reason: str,
) -> list[str]:
    """What happened and why, a sentence each."""
    objective, effect = search.goal.objective, search.goal.objective.effect
    trials = search.trials[1:]
    told = [
        f"Asked for: {objective.text or objective.metric}"
        + "".join(f", {limit.text or limit.name}" for limit in search.goal.limits)
        + (", quality not worse beyond its margin; " if search.with_quality else ", quality not measured; ")
        + f"{search.space.size} points in {sum(len(branch.knobs) for branch in search.space.branches)} knobs.",
        f"The incumbent against itself differed by {_percent(search.self_test)} over {len(search.self_test)} starts; "
        f"one paired block varies by {search.noise:.1%}.",
    ]
    kinds = Counter(trial.trouble.kind for trial in trials if trial.trouble is not None)
    beaten = sum(trial.state == "beaten" for trial in trials)
    told.append(
        f"{len(trials)} points were tried, {beaten} of them let go early"
        + "".join(f"; {count} × {kind} ({TROUBLES[kind]})" for kind, count in kinds.items())
        + "."
    )
    arms = _arms(search)
    parts = [
        f"{words} {arm['num_trials']} trials, best {arm['best_effect']:+.1%}"
        for words, arm in (
            ("the model's proposals:", arms["tpe"]),
            ("steps around the leader:", arms["polish"]),
            ("the control arm:", arms["control"]),
        )
        if arm["best_effect"] is not None
    ]
    if parts:
        told.append(f"By arm: {'; '.join(parts)}.")
    model = None if search.model is None else search.model.document()
    if model is not None and model["time_error"] is not None:
        pruned = sum(trial.state == "pruned" for trial in trials)
        told.append(
            f"The analytic model, fitted to {model['points']} points, is wrong by {model['time_error']:.0%} in time"
            + (f" and {model['memory_error']:.0%} in memory" if model["memory_error"] is not None else "")
            + f"; it spared {pruned} points a measurement."
        )
    told += [
        f"Trial {trial.number} was fast and refused: {trial.reason}."
        for trial in trials
        if trial.quality is not None and trial.quality > 0
    ]
    for finalist in finalists:
        verdict = "is proposed" if finalist is winner else "is not proposed"
        better = ": it holds too, but another gained more"
        because = "" if finalist is winner else better if finalist.outcome == "pass" else f": {why_not(finalist)}"
        measured = f"{effect(finalist.gain):+.1%} over {len(finalist.gains)} starts" if finalist.gains else "no figure"
        searched = effect(finalist.trial.gain or 0.0)
        told.append(
            f"Confirmed on fresh seeds, trial {finalist.trial.number} ({searched:+.1%} in the search) came to "
            f"{measured}; it {verdict}{because}."
        )
    if nearest is not None:
        told.append(f"No point keeps every limit: {nearest['text']}; the limit that binds is {nearest['binding']}.")
    told.append(f"Verdict: {reason}.")
    return told


def _percent(gains: Sequence[float]) -> str:
    return f"{statistics.fmean(gains):+.1%}" if gains else "–"


def finite(value: Any) -> Any:
    """The same plain data with None in place of what JSON cannot hold, and lists in place of tuples."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
