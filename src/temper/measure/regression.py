"""Whether a benchmark got worse than what was recorded: every metric at every load, under one error rate.

The unit is the session, not the round: rounds of one session share its hour, and an hour on a shared machine may be
slow. From `OWN_SPREAD` sessions on their own spread says what is normal (a prediction interval for one more session);
before, it is taken to be `ASSUMED_SPREAD`, so that only a gross change can be told.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from temper.measure.bench import METRICS, figure
from temper.measure.history import Session
from temper.measure.stats import noninferiority, proportion
from temper.measure.stats.ab import from_t
from temper.measure.stats.estimate import Estimate
from temper.measure.stats.verdict import Better, Outcome, Verdict

MARGIN = 0.1
"""Worse by less than this is no regression."""
FAILURES_MARGIN = 0.01
CONFIDENCE = 0.95
OWN_SPREAD = 3
ASSUMED_SPREAD = 0.08
"""Of one session's log figures around another's, on a machine with neighbours."""
MOST_SESSIONS = 20
"""Of the baseline: the newest."""

Load = tuple[str, float | None, float | None]
"""Engine, concurrency, rate."""


def judge(session: Session, recorded: Sequence[Session], margin: float = MARGIN) -> dict[str, Any]:
    """The verdict on `session` against `recorded` ones of its kind (newest first, without itself), as plain data.

    Pass: every metric is surely not more than `margin` worse. Fail: some metric is worse, in spite of all that are
    looked at (Holm), and not surely within the margin. Sessions of another machine are no baseline, which is said.
    """
    here = [one for one in recorded if one.machine_hash == session.machine_hash]
    same = [one for one in here if one.version == session.version]
    baseline = (same or here)[:MOST_SESSIONS]
    notes = _notes(session, recorded, baseline)
    if not baseline:
        elsewhere = bool(recorded)
        reason = (
            "recorded on another machine only: figures of two machines say nothing of a change"
            if elsewhere
            else "nothing like this was recorded: run it with --record first"
        )
        return {"verdict": "inconclusive", "reason": reason, "baseline": [], "verdicts": [], "notes": notes}
    found = list(_estimates(session, baseline))
    alarms = noninferiority.holm(
        {str(number): p for number, (_, _, better, one) in enumerate(found) if (p := one.p_worse(better)) is not None}
    )
    verdicts = []
    for number, (load, metric, better, one) in enumerate(found):
        allowed = FAILURES_MARGIN if metric == "failures" else margin
        verdict = noninferiority.not_worse(metric, better, one, margin=allowed, p_alarm=alarms.get(str(number)))
        verdicts.append((load, verdict))
    outcome, reason = _overall([verdict for _, verdict in verdicts])
    return {
        "verdict": outcome,
        "reason": reason,
        "baseline": [_plain(one) for one in baseline],
        "verdicts": [
            {"engine": load[0], "concurrency": load[1], "rate": load[2], **verdict.document()}
            for load, verdict in verdicts
        ],
        "notes": notes,
    }


def _notes(session: Session, recorded: Sequence[Session], baseline: Sequence[Session]) -> list[str]:
    notes = []
    others = {one.machine_hash: one for one in recorded if one.machine_hash != session.machine_hash}
    for one in others.values():
        notes.append(
            f"machine mismatch: session {one.id} was recorded on {one.machine.get('cpu')} with "
            f"{one.machine.get('usable_cores')} cores, this is {session.machine.get('cpu')} with "
            f"{session.machine.get('usable_cores')}; it is left out"
        )
    if baseline and baseline[0].version != session.version:
        notes.append("the baseline is another version of this profile: what is compared includes that change")
    if baseline and baseline[0].temper != session.temper:
        notes.append(f"the baseline was measured by Temper {baseline[0].temper}, this by {session.temper}")
    if 0 < len(baseline) < OWN_SPREAD:
        notes.append(
            f"{len(baseline)} session(s) recorded: until there are {OWN_SPREAD}, sessions are taken to differ by "
            f"{ASSUMED_SPREAD:.0%}, so only a gross change can be told"
        )
    return notes


def _estimates(session: Session, baseline: Sequence[Session]) -> Iterator[tuple[Load, str, Better, Estimate]]:
    for load in _loads(session):
        now = _runs(session, load)
        before = [runs for one in baseline if (runs := _runs(one, load))]
        for metric, better in METRICS.items():
            value = _session_log(now, metric)
            values = [log for runs in before if (log := _session_log(runs, metric)) is not None]
            if value is not None and values:
                yield load, metric, "higher" if better == "higher" else "lower", _against(value, values)
        if before:
            flat = [run for runs in before for run in runs]
            counts = [(_failed(runs), sum(run["requests"] for run in runs)) for runs in (flat, now)]
            yield load, "failures", "lower", proportion.difference(*counts[0], *counts[1], confidence=CONFIDENCE)


def _against(value: float, values: Sequence[float]) -> Estimate:
    """One session's log figure against several others': a prediction interval, two-sided."""
    own = len(values) >= OWN_SPREAD
    spread = statistics.stdev(values) if own else ASSUMED_SPREAD
    error = spread * math.sqrt(1 + 1 / len(values))
    centre = value - statistics.fmean(values)
    freedom = len(values) - 1 if own else math.inf
    method = "prediction interval on logs, " + ("t" if own else "spread assumed")
    evidence: dict[str, Any] = {
        "recorded": math.exp(statistics.fmean(values)), "now": math.exp(value), "spread": spread,
        "num_sessions": len(values),
    }  # fmt: skip
    return from_t(centre, error, freedom, method, True, CONFIDENCE, len(values), evidence)


def _loads(session: Session) -> list[Load]:
    return list(dict.fromkeys((run["engine"], run.get("concurrency"), run.get("rate")) for run in session.runs))


def _runs(session: Session, load: Load) -> list[Mapping[str, Any]]:
    return [run for run in session.runs if (run["engine"], run.get("concurrency"), run.get("rate")) == load]


def _session_log(runs: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    """Mean of the log figures of a session's rounds; None where a round has none."""
    values = [figure(run, metric) for run in runs]
    if not values or any(value is None or value <= 0 for value in values):
        return None
    return statistics.fmean(math.log(value) for value in values if value is not None)


def _failed(runs: Sequence[Mapping[str, Any]]) -> int:
    return sum(run["requests"] - run["completed"] for run in runs)


def _overall(verdicts: Sequence[Verdict]) -> tuple[Outcome, str]:
    failed = [verdict for verdict in verdicts if verdict.verdict == "fail"]
    if failed:
        return "fail", f"{failed[0].metric}: {failed[0].reason}"
    unsure = [verdict for verdict in verdicts if verdict.verdict == "inconclusive"]
    if unsure or not verdicts:
        said = f"{unsure[0].metric}: {unsure[0].reason}" if unsure else "no load in common with what was recorded"
        return "inconclusive", said
    return "pass", "no metric is more than its margin worse"


def _plain(session: Session) -> dict[str, Any]:
    return {"id": session.id, "recorded_at": session.recorded_at, "version": session.version, "temper": session.temper}
