"""The controller: reads what became of requests, and moves each rollout on.

Any number may run against one store; the holder of the lease acts. One turn is one transaction a rollout: what was
read, what was judged and what was decided are written together or not at all, so a controller may be killed anywhere.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable

from temper.fleet.database import StoreUnreachable
from temper.fleet.journal import Requests
from temper.fleet.judge import Judge
from temper.fleet.rollouts import Decision, Rollout, decide
from temper.fleet.store import LeaseLost, Store

log = logging.getLogger(__name__)

LEASE = "controller"
TTL_S = 10.0
"""A controller that was killed is replaced after so long."""
INTERVAL_S = 0.5
MOST_ROWS = 1000
"""Judged in one transaction: servers must not wait long for their turn to write."""
LOOK_GROWTH = 1.02
"""A look is kept for the page once so many times the units of the last one were judged."""


class Controller:
    """One candidate for the lease."""

    def __init__(self, store: Store, holder: str | None = None, ttl_s: float = TTL_S) -> None:
        self.store = store
        self.holder = holder or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._ttl_s = ttl_s
        self._looked: dict[str, int] = {}

    def step(self) -> bool:
        """`tick`, but a store that does not answer, or a lease that was lost, is only told to the log."""
        try:
            return self.tick()
        except (StoreUnreachable, LeaseLost) as error:
            log.warning("the controller waits: %s", error)
            return False

    def leave(self) -> None:
        """Give the lease back, so that nobody waits for it."""
        try:
            self.store.drop_lease(LEASE, self.holder)
        except StoreUnreachable as error:
            log.debug("the lease will expire: %s", error)

    def run(self, until: Callable[[], bool] = lambda: False, interval_s: float = INTERVAL_S) -> None:
        """Act until `until()`; a store that does not answer is asked again."""
        try:
            while not until():
                if not self.step():
                    time.sleep(interval_s)
        finally:
            self.leave()

    def tick(self) -> bool:
        """Take or renew the lease and move every running rollout on by one transaction; whether more is waiting.

        Raises:
            StoreUnreachable: nothing was changed.
            LeaseLost: somebody else took over between.
        """
        if not self.store.take_lease(LEASE, self.holder, self._ttl_s):
            return False
        running = [rollout for rollout in self.store.rollouts.all() if rollout.state == "running"]
        busy = [self.advance(rollout.id) for rollout in running]
        return any(busy)

    def advance(self, id: str) -> bool:
        """One transaction of one rollout; whether more rows are waiting."""
        store = self.store
        with store.acting(LEASE, self.holder):
            rollout = store.rollouts.find(id)
            if rollout.state != "running":
                return False
            requests: Requests = store.requests
            requests.settle(id, rollout.plan.patience_s)
            rows = requests.fresh(id, MOST_ROWS)
            judge = rollout.judge()
            now = store.database.now()
            decision = Decision("hold", rollout.reason)
            used = []
            for row in rows:
                used.append(row)
                unit = requests.unit(row)
                if unit is None:
                    continue
                judge.observe(unit)
            decision = self._unable(rollout) or decide(
                rollout.plan, rollout.step, judge, now - rollout.step_at, now - rollout.created_at
            )
            requests.judged(used)
            self._apply(rollout, judge, decision)
        return len(rows) == MOST_ROWS

    def _apply(self, rollout: Rollout, judge: Judge, decision: Decision) -> None:
        rollouts = self.store.rollouts
        moves = decision.do == "step" and not rollout.paused
        if moves:
            judge.next_step()
        if judge.num_units != rollout.judged.get("num_units", 0) or decision.reason != rollout.reason or moves:
            rollouts.keep(rollout, judge, decision.reason)
        if judge.num_units >= LOOK_GROWTH * self._looked.get(rollout.id, 0) + 1 or decision.do not in ("hold", "step"):
            self._looked[rollout.id] = judge.num_units
            rollouts.look(rollout, judge)
        if moves:
            rollouts.advance(rollout, decision.reason)
        elif decision.do == "promote" and not rollout.paused:
            rollouts.promote(rollout, decision.reason)
        elif decision.do == "roll_back":
            rollouts.end(rollout, "rolled_back", decision.reason)
        elif decision.do == "give_up":
            rollouts.end(rollout, "inconclusive", decision.reason)

    def _unable(self, rollout: Rollout) -> Decision | None:
        """Rolled back when a server says that the candidate cannot be served at all."""
        for server in self.store.deployments.servers(rollout.deployment):
            if server.alive and server.rollout == rollout.id and server.error:
                return Decision("roll_back", f"{server.url} cannot serve the candidate: {server.error}")
        return None
