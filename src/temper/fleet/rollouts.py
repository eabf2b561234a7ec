"""Rollouts: the rows that say how much traffic goes to which version, and the transitions between their states.

A rollout is `running` until it is `promoted`, `rolled_back`, `inconclusive` or `aborted`; while it runs it may be
paused. Whatever state its controller dies in, the row says all that the next one needs. What a step calls for is
decided by `decide`, which knows nothing of rows.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from temper.errors import Invalid, NotFound
from temper.fleet.judge import Judge
from temper.fleet.plan import Plan
from temper.measure.stats.verdict import Verdict

if TYPE_CHECKING:
    from temper.fleet.store import Store

State = Literal["running", "promoted", "rolled_back", "inconclusive", "aborted"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One move of traffic from a control to a candidate."""

    id: str
    """Also the seed of its draw."""
    deployment: str
    candidate: str
    control: str
    plan: Plan
    state: State
    paused: bool
    step: int
    share: float
    """Wanted now: of the units that are drawn to the candidate."""
    judged: Mapping[str, Any]
    """The judge's state."""
    reason: str
    """Why it is where it is, for people."""
    revision: int
    created_at: float
    step_at: float
    """When the present step began."""
    ended_at: float | None

    @property
    def seed(self) -> int:
        """Decides the arm of each unit; fits 63 bits."""
        return int(self.id, 16) >> 1

    def judge(self) -> Judge:
        """Its evidence so far."""
        return Judge.restored(self.plan, self.judged)

    def verdict(self) -> Verdict:
        """What that says."""
        return self.judge().verdict()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a rollout now."""

    do: Literal["hold", "step", "promote", "roll_back", "give_up"]
    reason: str


def decide(plan: Plan, step: int, judge: Judge, step_age_s: float, age_s: float) -> Decision:
    """Promote, hold or roll back; `judge` holds everything that was seen.

    Harm that is shown rolls back at any moment. The next step needs its minimum of traffic and of time; the last
    one, the promotion, needs the evidence. Time or traffic that runs out without it gives up.
    """
    verdict = judge.verdict()
    if verdict.verdict == "fail":
        return Decision("roll_back", verdict.reason)
    if judge.num_units and plan.max_requests is not None and judge.num_units >= plan.max_requests:
        if verdict.verdict == "pass" and step == len(plan.steps) - 2:
            return Decision("promote", verdict.reason)
        return Decision("give_up", f"after {judge.num_units} units: {verdict.reason}")
    if age_s >= plan.max_s:
        return Decision("give_up", f"time is up, after {judge.num_units} units: {verdict.reason}")
    short = plan.min_requests - judge.num_in_step
    if short > 0:
        return Decision("hold", f"{short} more requests at {plan.steps[step]:.0%}")
    if step_age_s < plan.min_s:
        return Decision("hold", f"{math.ceil(plan.min_s - step_age_s)} s more at {plan.steps[step]:.0%}")
    if step < len(plan.steps) - 2:
        return Decision("step", verdict.reason)
    if verdict.verdict == "pass":
        return Decision("promote", verdict.reason)
    return Decision("hold", verdict.reason)


class Rollouts:
    """The rollouts of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database

    def start(self, deployment: str, candidate: str, plan: Plan | None = None) -> Rollout:
        """Begin to move a deployment's traffic to a version.

        Raises:
            NotFound: no such deployment or version.
            Invalid: it serves already, another rollout is running, or none of its servers is.
        """
        plan = plan or Plan()
        with self._database.transaction():
            version = self._store.versions.find(candidate)
            production = self._store.deployments.find(deployment).production
            if version.id == production:
                raise Invalid(f"version {version.short} is production of '{deployment}' already", param="version")
            running = self.running(deployment)
            if running is not None:
                raise Invalid(
                    f"rollout {running.id} of '{deployment}' is still running", param="version", hint="abort it first"
                )
            if not any(server.alive for server in self._store.deployments.servers(deployment)):
                raise Invalid(
                    f"no server of '{deployment}' is running", param="deployment", hint="start one: temper serve"
                )
            id = secrets.token_hex(8)
            now = self._database.now()
            self._database.change(
                "INSERT INTO rollouts (id, deployment, candidate, control, plan, state, paused, step, share, judged, "
                "reason, revision, created_at, step_at) VALUES (?, ?, ?, ?, ?, 'running', 0, 0, ?, '{}', ?, 0, ?, ?)",
                (
                    id,
                    deployment,
                    version.id,
                    production,
                    plan.model_dump_json(),
                    plan.steps[0],
                    "just begun",
                    now,
                    now,
                ),
            )
            self._store.versions.mark_chosen(version.id)
            self._tell(id, deployment, version.id, "started", f"Rollout began: {plan.steps[0]:.0%} to {version.short}.")
        return self.find(id)

    def find(self, id: str) -> Rollout:
        """The rollout with this id.

        Raises:
            NotFound: there is none.
        """
        row = self._database.row("SELECT * FROM rollouts WHERE id = ?", (id,))
        if row is None:
            raise NotFound(f"no rollout is called '{id}'", param="rollout", hint="temper rollout status")
        return _rollout(row)

    def running(self, deployment: str | None = None) -> Rollout | None:
        """The one that is under way."""
        found = [one for one in self.all(deployment, most=20) if one.state == "running"]
        return found[0] if found else None

    def all(self, deployment: str | None = None, *, most: int = 50) -> list[Rollout]:
        """The last ones, newest first; running ones before all others."""
        rows = self._database.rows(
            "SELECT * FROM rollouts WHERE (CAST(? AS TEXT) IS NULL OR deployment = ?) "
            "ORDER BY CASE state WHEN 'running' THEN 0 ELSE 1 END, created_at DESC LIMIT ?",
            (deployment, deployment, most),
        )
        return [_rollout(row) for row in rows]

    # -- by hand -----------------------------------------------------------------------------------------

    def pause(self, id: str, paused: bool = True) -> Rollout:
        """Hold the share where it is; evidence is still gathered, and harm still rolls back.

        Raises:
            Invalid: it is over.
        """
        with self._database.transaction():
            rollout = self._open(id)
            if rollout.paused != paused:
                self._database.change(
                    "UPDATE rollouts SET paused = ?, revision = revision + 1 WHERE id = ?", (int(paused), id)
                )
                word = "paused" if paused else "resumed"
                self._tell(id, rollout.deployment, rollout.candidate, word, f"Rollout {word} by hand.")
        return self.find(id)

    def abort(self, id: str, why: str = "aborted by hand") -> Rollout:
        """End it: all traffic goes back to the control.

        Raises:
            Invalid: it is over.
        """
        with self._database.transaction():
            self.end(self._open(id), "aborted", why)
        return self.find(id)

    def end_others(self, deployment: str, why: str) -> None:
        """End what runs in a deployment because its production changes; inside a transaction."""
        running = self.running(deployment)
        if running is not None:
            self.end(running, "aborted", why)

    def _open(self, id: str) -> Rollout:
        rollout = self.find(id)
        if rollout.state != "running":
            raise Invalid(f"rollout {id} is {rollout.state} already", param="rollout")
        return rollout

    # -- by the controller, inside its transactions ------------------------------------------------------

    def keep(self, rollout: Rollout, judge: Judge, reason: str) -> None:
        """Write down what was judged."""
        self._database.change(
            "UPDATE rollouts SET judged = ?, reason = ?, revision = revision + 1 WHERE id = ? AND state = 'running'",
            (json.dumps(judge.state()), reason, rollout.id),
        )

    def advance(self, rollout: Rollout, reason: str) -> None:
        """The next step."""
        step = rollout.step + 1
        share = rollout.plan.steps[step]
        self._database.change(
            "UPDATE rollouts SET step = ?, share = ?, step_at = ?, revision = revision + 1 WHERE id = ?",
            (step, share, self._database.now(), rollout.id),
        )
        self._tell(
            rollout.id, rollout.deployment, rollout.candidate, "step", f"{share:.0%} to the candidate: {reason}."
        )

    def promote(self, rollout: Rollout, reason: str) -> None:
        """The candidate is production."""
        self.end(rollout, "promoted", reason)
        self._database.change(
            "UPDATE deployments SET production = ? WHERE name = ?", (rollout.candidate, rollout.deployment)
        )
        self._store.versions.mark_chosen(rollout.candidate)
        self._store.versions.mark_retired(rollout.control)

    def end(self, rollout: Rollout, state: State, reason: str) -> None:
        """It is over, and the verdict becomes evidence."""
        verdict = self.find(rollout.id).verdict()
        share = 1.0 if state == "promoted" else 0.0
        self._database.change(
            "UPDATE rollouts SET state = ?, share = ?, reason = ?, ended_at = ?, revision = revision + 1 "
            "WHERE id = ? AND state = 'running'",
            (state, share, reason, self._database.now(), rollout.id),
        )
        if state == "rolled_back":
            self._store.versions.mark_retired(rollout.candidate)
        self._store.versions.witness(
            rollout.candidate, "rollout", verdict.verdict, {"rollout": rollout.id, **plain(verdict)}
        )
        self._tell(rollout.id, rollout.deployment, rollout.candidate, state, f"{_ENDS[state]}: {reason}.")

    def _tell(self, id: str, deployment: str, version: str, kind: str, text: str) -> None:
        self._store.tell(deployment, kind, text, rollout=id, version=version)

    # -- looks -------------------------------------------------------------------------------------------

    def look(self, rollout: Rollout, judge: Judge) -> None:
        """Keep what the intervals are now, for the page."""
        seen = {metric: judge.seen(metric) for metric in judge.sequences}
        document = {metric: [_finite(effect), *map(_finite, interval)] for metric, (effect, interval) in seen.items()}
        self._database.change(
            "INSERT INTO looks (rollout, num_requests, at, document) VALUES (?, ?, ?, ?)",
            (rollout.id, judge.num_units, self._database.now(), json.dumps({"share": rollout.share, **document})),
        )

    def looks(self, id: str) -> list[dict[str, Any]]:
        """`num_requests`, `at`, `share`, and of each metric [effect, low, high]; oldest first."""
        rows = self._database.rows(
            "SELECT num_requests, at, document FROM looks WHERE rollout = ? ORDER BY number", (id,)
        )
        return [{"num_requests": row["num_requests"], "at": row["at"], **json.loads(row["document"])} for row in rows]


_ENDS = {
    "promoted": "Promoted",
    "rolled_back": "Rolled back",
    "inconclusive": "Ended without a verdict, traffic is back at the control",
    "aborted": "Ended",
}


def plain(verdict: Verdict) -> dict[str, Any]:
    """A verdict for JSON: an end that is not bounded is null."""
    document = verdict.document()

    def finite(entry: dict[str, Any]) -> dict[str, Any]:
        interval = entry["interval"]
        entry["interval"] = None if interval is None else [_finite(end) for end in interval]
        entry["guardrails"] = [finite(inner) for inner in entry["guardrails"]]
        return entry

    return finite(document)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rollout(row: Mapping[str, Any]) -> Rollout:
    return Rollout(
        **{
            **row,
            "plan": Plan.model_validate_json(row["plan"]),
            "judged": json.loads(row["judged"]),
            "paused": bool(row["paused"]),
        }
    )
