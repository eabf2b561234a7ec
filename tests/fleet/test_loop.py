"""The loop on a store that a test fills: what it notices, what it does, and what its record says."""

from __future__ import annotations

import random

import pytest

from temper.errors import Draining, Invalid
from temper.fleet.controller import LEASE, Controller
from temper.fleet.drift import drifts
from temper.fleet.loop import Loop
from temper.fleet.monitor import Seen, observe
from temper.fleet.plan import Guardrail, Plan
from temper.fleet.store import Store
from temper.profile.schema import Slo
from tests.fleet.stores import dispatch, fake, served

PLAN = Plan(
    steps=(0.5, 1.0),
    min_requests=40,
    min_s=0.0,
    quality="off",
    guardrails=(Guardrail(metric="errors", tolerance=0.2, proven=True),),
)


class Traffic:
    """Writes what servers would have written."""

    def __init__(self, store: Store) -> None:
        self.store, self.number, self.rng = store, 0, random.Random(3)

    def production(self, num: int, *, prompt: float = 20, e2e_ms: float = 100, **how) -> None:
        """Requests without a rollout, of the last moment."""
        with self.store.database.transaction():
            for _ in range(num):
                self.number += 1
                tokens, slow = self.rng.lognormvariate(0, 0.3), self.rng.lognormvariate(0, 0.3)
                figures = {"prompt_tokens": round(prompt * tokens), "e2e_ms": e2e_ms * slow, **how}
                dispatch(self.store, None, self.number, None, None, **figures)  # type: ignore[arg-type]

    def canary(self, num: int, failing: float = 0.0) -> None:
        """Requests of the rollout that is running."""
        running = self.store.rollouts.running()
        if running is None:
            return
        with self.store.database.transaction():
            for _ in range(num):
                self.number += 1
                arm = "candidate" if self.rng.random() < running.share else "control"
                failed = arm == "candidate" and self.rng.random() < failing
                outcome = {"outcome": "failed", "ttft_ms": None, "e2e_ms": None} if failed else {}
                dispatch(self.store, running.id, self.number, arm, running.share, **outcome)


@pytest.fixture
def store(tmp_path):
    with Store(f"sqlite:///{tmp_path / 'fleet.db'}") as opened:
        served(opened)
        yield opened


@pytest.fixture
def traffic(store):
    return Traffic(store)


def loop(store: Store, tune=None, **fields) -> Loop:
    return Loop(store, "default", Controller(store, "test"), tune, plan=PLAN, **fields)


class Driven(Controller):
    """A controller to whom traffic comes as it looks."""

    def __init__(self, store: Store, traffic: Traffic, failing: float = 0.0) -> None:
        super().__init__(store, "test")
        self.traffic, self.failing = traffic, failing

    def tick(self) -> bool:
        self.store.deployments.report("s1", "default", "http://127.0.0.1:1", "v")
        self.traffic.canary(40, self.failing)
        return super().tick()


def study(store: Store, *, better: bool = True):
    """A tuner that finds something, or does not."""
    asked = []

    def tune(workload, incumbent):
        asked.append((workload, incumbent))
        winner = store.versions.add(fake(seed=77), {}, origin="study", source="s-1")
        return {
            "study": "s-1",
            "num_trials": 12,
            "reason": "p99 is 20 % lower" if better else "nothing was better",
            "winner": {"version": winner.id} if better else None,
        }

    tune.asked = asked  # type: ignore[attr-defined]
    return tune


def settled(store: Store, traffic: Traffic) -> None:
    """The loop has seen how things are."""
    traffic.production(300)
    assert loop(store).turn().outcome == "steady"
    assert store.deployments.reference("default") is not None


def shifted(store: Store, traffic: Traffic) -> None:
    """Prompts became five times as long."""
    store.database.change("DELETE FROM requests")
    traffic.production(300, prompt=100)


def test_nothing_changed_nothing_done(store, traffic):
    settled(store, traffic)
    turn = loop(store, study(store)).turn()
    assert turn.outcome == "steady"
    assert "300 requests came" in turn.prose()
    assert turn.prose().endswith("That is as it was, so nothing was done.")


def test_a_shift_is_tuned_for_and_what_is_proven_is_promoted(store, traffic):
    settled(store, traffic)
    shifted(store, traffic)
    tune = study(store)
    turn = Loop(store, "default", Driven(store, traffic), tune, plan=PLAN).turn()
    assert turn.outcome == "promoted", turn.prose()
    workload, incumbent = tune.asked[0]
    assert workload.content.input_tokens.median == pytest.approx(100, rel=0.1)
    assert incumbent == fake()
    production = store.versions.find(store.deployments.find("default").production)
    assert (production.profile, production.stage) == (fake(seed=77), "production")
    prose = turn.prose()
    for said in ("prompts went from 20 tokens to", "Study s-1 tried 12 profiles: p99 is 20 % lower.", "is promoted"):
        assert said in prose
    assert next(iter(store.turns.all()))["sentences"] == turn.sentences
    assert store.deployments.reference("default") is None  # what is normal now is seen anew


def test_a_winner_that_fails_its_canary_is_rolled_back(store, traffic):
    settled(store, traffic)
    shifted(store, traffic)
    turn = Loop(store, "default", Driven(store, traffic, failing=0.5), study(store), plan=PLAN).turn()
    assert turn.outcome == "rolled_back"
    assert "worse than tolerated: errors" in turn.prose()
    assert store.versions.find(store.deployments.find("default").production).profile == fake()


def test_no_better_profile_makes_the_shift_the_new_normal(store, traffic):
    settled(store, traffic)
    shifted(store, traffic)
    assert loop(store, study(store, better=False)).turn().outcome == "no better"
    assert loop(store, study(store, better=False)).turn().outcome == "steady"


def test_without_room_it_waits_and_a_dry_run_writes_nothing(store, traffic):
    settled(store, traffic)
    shifted(store, traffic)
    reference, turns = store.deployments.reference("default"), len(store.turns.all())
    dry = loop(store, study(store), dry=True).turn()
    assert dry.outcome == "dry"
    assert dry.prose().endswith("a canary of what it finds.")
    assert (store.deployments.reference("default"), len(store.turns.all())) == (reference, turns)
    assert loop(store, study(store), spare=lambda: False).turn().outcome == "busy"
    assert store.rollouts.all() == []


def test_a_tuner_that_breaks_ends_the_turn_and_not_the_loop(store, traffic):
    settled(store, traffic)
    shifted(store, traffic)

    def broken(workload, incumbent):
        raise Invalid("no such knob")

    with pytest.raises(Invalid, match="no such knob"):
        loop(store, broken).turn()
    turn = loop(store).turn()
    assert "interrupted" in [one["outcome"] for one in store.turns.all()]
    assert turn.outcome == "dry"


def test_a_loop_that_is_told_to_end_leaves_its_rollout_to_the_next(store, traffic):
    settled(store, traffic)
    shifted(store, traffic)
    with pytest.raises(Draining, match="told to end"):
        loop(store, study(store), until=lambda: store.rollouts.running() is not None).turn()
    rollout = store.rollouts.running()
    turn = Loop(store, "default", Driven(store, traffic), None, plan=PLAN).turn()
    assert turn.sentences[0] == f"Rollout {rollout.id} was under way, so its end was awaited."
    assert store.rollouts.find(rollout.id).state == "promoted"


def test_the_lease_goes_back_when_a_controller_leaves(store):
    controller = Controller(store, "one")
    controller.tick()
    assert store.lease_holder(LEASE) == "one"
    controller.leave()
    assert store.lease_holder(LEASE) is None


# -- drift -------------------------------------------------------------------------------------------


def seen(store: Store, traffic: Traffic, num: int = 300, **how) -> Seen:
    store.database.change("DELETE FROM requests")
    traffic.production(num, **how)
    found = observe(store, "default", 60)
    return Seen.from_json(found.to_json())


def kinds(before: Seen, now: Seen, slo: Slo | None = None) -> set[str]:
    # All rows of a test are written in one moment, so arrivals say nothing here.
    calm = [drift for drift in drifts(before, now, slo or Slo()) if "arrivals" not in drift.text]
    return {drift.kind for drift in calm}


def test_each_kind_of_drift_is_noticed_and_sameness_is_not(store, traffic):
    before = seen(store, traffic)
    assert kinds(before, seen(store, traffic)) == set()
    assert kinds(before, seen(store, traffic, prompt=40)) == {"workload"}
    assert kinds(before, seen(store, traffic, e2e_ms=200)) == {"latency"}
    assert kinds(before, seen(store, traffic, quality=0.0)) == set()  # nothing to compare with
    judged = seen(store, traffic, quality=1.0)
    assert kinds(judged, seen(store, traffic, quality=0.0)) == {"quality"}
    assert kinds(before, seen(store, traffic, outcome="failed")) >= {"quality"}


def test_a_broken_promise_needs_no_past(store, traffic):
    now = seen(store, traffic, e2e_ms=300)
    assert kinds(Seen(0, 0, 0, 0, 0.0, (), (), (), ()), now, Slo(e2e_p99_ms=200)) == {"slo"}
    assert kinds(Seen(0, 0, 0, 0, 0.0, (), (), (), ()), now, Slo(e2e_p99_ms=5000)) == set()


def test_few_requests_say_nothing(store, traffic):
    before = seen(store, traffic)
    assert kinds(before, seen(store, traffic, 60, prompt=200), Slo(e2e_p99_ms=1)) == set()
