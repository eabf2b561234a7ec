"""The loop: observe → tune → canary → promote or roll back, and a record that reads as prose. Start at `Loop.turn`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from temper.errors import Draining, TemperError
from temper.fleet.controller import LEASE, Controller
from temper.fleet.drift import FEWEST, Drift, drifts
from temper.fleet.monitor import Seen, observe
from temper.fleet.plan import Plan
from temper.fleet.rollouts import Rollout
from temper.fleet.store import Store
from temper.fleet.turns import Turn
from temper.measure.workload.schema import Workload
from temper.profile.schema import Profile

log = logging.getLogger(__name__)

Tune = Callable[[Workload, Profile], Mapping[str, Any]]
"""A study for a workload against an incumbent, within its budget; the document of `temper tune --json`, whose winner
(if there is one) is a version in the store."""


class Loop:
    """One deployment's. Without `tune` nothing is tuned; `spare` says whether the machine has room for it."""

    def __init__(
        self,
        store: Store,
        deployment: str,
        controller: Controller,
        tune: Tune | None,
        *,
        spare: Callable[[], bool] = lambda: True,
        window_s: float = 600.0,
        plan: Plan | None = None,
        dry: bool = False,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store, self.deployment, self.controller, self.tune = store, deployment, controller, tune
        self.spare, self.window_s, self.plan, self.dry = spare, window_s, plan or Plan(), dry
        self.until = until

    def turn(self) -> Turn:
        """Once around."""
        turn = self._begin()
        seen = observe(self.store, self.deployment, self.window_s)
        turn.say(seen.prose())
        found = self._drifts(seen)
        if not found:
            few = seen.num_requests < FEWEST
            said = "That is too little to tell" if few else "That is as it was"
            return self._end(turn, "steady", f"{said}, so nothing was done.")
        turn.say(f"Something changed: {'; '.join(drift.text for drift in found)}.")
        if not self.spare():
            return self._end(turn, "busy", "The machine has no room to tune now; the next turn looks again.")
        if self.dry or self.tune is None:
            return self._end(turn, "dry", "A study for this workload would come next, and a canary of what it finds.")
        study = self._tune(turn, seen)
        if study["winner"] is None:
            return self._end(turn, "no better", f"No better profile was proven: {study['reason']}.", reference=seen)
        rollout = self._canary(turn, study)
        return self._end(turn, rollout.state, f"The rollout is {rollout.state}: {rollout.reason}.", reference=None)

    # -- the stations ------------------------------------------------------------------------------------

    def _begin(self) -> Turn:
        turn = Turn(self.deployment)
        if not self.dry:
            self.store.turns.open(turn)
        running = self.store.rollouts.running(self.deployment)
        if running is not None and not self.dry:
            turn.say(f"Rollout {running.id} was under way, so its end was awaited.")
            self._await(lambda: self.store.rollouts.find(running.id).state != "running")
        return turn

    def _drifts(self, seen: Seen) -> list[Drift]:
        """Against the reference; the first window that says anything becomes the reference."""
        reference = self.store.deployments.reference(self.deployment)
        production = self.store.versions.find(self.store.deployments.find(self.deployment).production)
        if reference is None and seen.num_requests >= FEWEST and not self.dry:
            self.store.deployments.refer(self.deployment, seen.to_json())
        return drifts(seen if reference is None else Seen.from_json(reference), seen, production.profile.slo)

    def _tune(self, turn: Turn, seen: Seen) -> Mapping[str, Any]:
        """A study in a thread, while rollouts of other deployments go on."""
        assert self.tune is not None
        production = self.store.versions.find(self.store.deployments.find(self.deployment).production)
        work: Future[Mapping[str, Any]] = Future()
        arguments = (work, self.tune, seen.workload(self.deployment), production.profile)
        threading.Thread(target=_into, args=arguments, name="temper-study", daemon=True).start()
        self._await(work.done)
        study = work.result()
        turn.figures["study"] = study["study"]
        turn.say(f"Study {study['study']} tried {study['num_trials']} profiles: {study['reason']}.")
        return study

    def _canary(self, turn: Turn, study: Mapping[str, Any]) -> Rollout:
        """The winner beside production, until a verdict."""
        rollout = self.store.rollouts.start(self.deployment, study["winner"]["version"], self.plan)
        turn.figures["rollout"] = rollout.id
        turn.say(f"Version {rollout.candidate[:12]} went beside production with {rollout.share:.0%} of the traffic.")
        self.store.turns.keep(turn)
        self._await(lambda: self.store.rollouts.find(rollout.id).state != "running")
        return self.store.rollouts.find(rollout.id)

    def _end(self, turn: Turn, outcome: str, sentence: str, **change: Seen | None) -> Turn:
        turn.say(sentence)
        turn.outcome = outcome
        if "reference" in change and not self.dry:
            kept = change["reference"]
            self.store.deployments.refer(self.deployment, None if kept is None else kept.to_json())
        self.store.turns.keep(turn)
        return turn

    def _await(self, done: Callable[[], bool], poll_s: float = 0.2) -> None:
        """Control rollouts until something is done.

        Raises:
            Draining: the loop is to end first; the next one goes on from what the store says.
        """
        while not done():
            if self.until():
                raise Draining("the loop was told to end")
            self.controller.step()
            time.sleep(poll_s)


def _into(work: Future[Mapping[str, Any]], tune: Tune, workload: Workload, incumbent: Profile) -> None:
    try:
        work.set_result(tune(workload, incumbent))
    except BaseException as error:
        work.set_exception(error)


def run(
    store: Store, make: Callable[[str, Controller], Loop], until: Callable[[], bool], interval_s: float = 60.0
) -> None:
    """Control every rollout of the store, and take a turn for each running deployment every `interval_s` seconds."""
    controller = Controller(store)
    next_turn = time.monotonic() + interval_s
    try:
        while not until():
            controller.step()
            if time.monotonic() >= next_turn and store.lease_holder(LEASE) == controller.holder:
                for deployment in sorted({server.deployment for server in store.deployments.servers() if server.alive}):
                    try:
                        turn = make(deployment, controller).turn()
                        log.warning("%s: %s", deployment, turn.prose())
                    except TemperError as error:
                        log.error("%s: the turn broke off: %s", deployment, error)
                next_turn = time.monotonic() + interval_s
            time.sleep(0.2)
    finally:
        controller.leave()
