"""The verbs of the fleet: rollouts and the loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.api.environment import Place
from temper.api.store import open_store
from temper.api.tuning import tune
from temper.api.versions import add_version
from temper.machine import usable_cores
from temper.profile.schema import Profile

if TYPE_CHECKING:
    from temper.fleet.controller import Controller
    from temper.fleet.loop import Loop
    from temper.fleet.plan import Plan
    from temper.fleet.rollouts import Rollout
    from temper.fleet.store import Store
    from temper.fleet.turns import Turn
    from temper.measure.workload.schema import Workload


def rollout(
    version: str | Path | Profile,
    *,
    deployment: str | None = None,
    plan: Plan | Mapping[str, Any] | None = None,
    where: Place | None = None,
) -> Rollout:
    """Begin to move the traffic of running servers to a version; a controller (`control`) moves it on.

    `version` is an id, or any profile, which is kept as a version first. `plan` holds fields of `fleet.plan.Plan`.

    Raises:
        NotFound, ProfileError: no such version or deployment.
        Invalid: the plan cannot be, it serves already, another rollout runs, or no server does.
    """
    from temper.fleet.plan import Plan, plan_of

    chosen = plan if isinstance(plan, Plan) else plan_of(plan or {})
    with open_store(where) as store:
        found = store.versions.get(str(version)) if not isinstance(version, Profile) else None
        target = store.deployments.chosen(deployment)
    if found is None:
        found = add_version(version, parent=target.production, where=where)
    with open_store(where) as store:
        return store.rollouts.start(target.name, found.id, chosen)


def rollout_page(id: str, where: Place | None = None) -> str:
    """A rollout as one HTML file that needs no network.

    Raises:
        NotFound: there is no such rollout.
    """
    from temper.dashboard.rollouts import standalone

    with open_store(where) as store:
        return standalone(store, id)


def control(
    until: Callable[[], bool] = lambda: False,
    *,
    tune: bool = False,
    objective: str = "",
    budget: str = "10min",
    interval_s: float = 60.0,
    window_s: float = 600.0,
    where: Place | None = None,
) -> None:
    """Control the place's rollouts until `until()`; with `tune`, take turns of the loop as well.

    Every `interval_s` seconds each running deployment's last `window_s` seconds are compared with what they were; what
    drifted is tuned for (`objective`, `budget` as in `tune`), and a proven winner goes on a canary.
    """
    from temper.fleet import loop

    with open_store(where) as store:
        loop.run(
            store,
            lambda name, controller: _loop(
                store, name, controller, tune, objective, budget, window_s, where, until=until
            ),
            until,
            interval_s if tune else float("inf"),
        )


def turn(
    deployment: str | None = None,
    *,
    dry: bool = True,
    objective: str = "",
    budget: str = "10min",
    window_s: float = 600.0,
    where: Place | None = None,
) -> Turn:
    """One turn of the loop for one deployment; `dry`: only say what would be done."""
    from temper.fleet.controller import Controller

    with open_store(where) as store:
        name = store.deployments.chosen(deployment).name
        controller = Controller(store)
        try:
            return _loop(store, name, controller, True, objective, budget, window_s, where, dry=dry).turn()
        finally:
            controller.leave()


def _loop(
    store: Store,
    deployment: str,
    controller: Controller,
    tuning: bool,
    objective: str,
    budget: str,
    window_s: float,
    where: Place | None,
    *,
    dry: bool = False,
    until: Callable[[], bool] = lambda: False,
) -> Loop:
    from temper.fleet.loop import Loop

    def study(workload: Workload, incumbent: Profile) -> Mapping[str, Any]:
        return tune(workload, incumbent, objective=objective, budget=budget, where=where)

    return Loop(
        store,
        deployment,
        controller,
        study if tuning else None,
        spare=_has_room,
        window_s=window_s,
        dry=dry,
        until=until,
    )


def _has_room() -> bool:
    """Whether less than half of the cores were busy over the last minute: a study takes the rest from nobody."""
    return os.getloadavg()[0] < 0.5 * usable_cores()
