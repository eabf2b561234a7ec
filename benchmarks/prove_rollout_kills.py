"""SIGKILL of the controller, the server or the engine at random moments of rollouts.

After each kill: the store is consistent (one rollout at most is running, every judged request is judged once, what was
promoted has passed), and traffic goes on once what was killed is up again. The candidate is a server of its own below
ours (kind `process`), so an engine can be killed too.

    make prove rollout_kills ARGS='--kills 50'
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rollout_servers import Callers, Fleet, kill, wait

import report
from temper import api
from temper.fleet.plan import Guardrail, Plan

KEPT = Path(__file__).parent.parent / "build" / "prove" / "rollout_kills.json"
PLAN = Plan(
    steps=(0.2, 0.5, 1.0),
    min_requests=40,
    min_s=0.5,
    quality="off",
    guardrails=(Guardrail(metric="errors", tolerance=0.15, proven=True),),
)
"""Sure of itself after some hundred requests, so that rollouts end while others are being killed."""

CANDIDATE = """
[engine]
kind = "process"
command = [{python!r}, "-m", "temper.cli", "serve", "--engine", "fake:echo", "--port", "{{port}}", "--home", {home!r}]
max_restarts = 100000
first_backoff_s = 0.1
ready_path = "/ready"
environment = {{ NUMBER = "{number}" }}
"""


class Rollouts:
    """Always one under way: a new candidate once the last one has ended."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.number = fleet, 0
        self.where = api.place(home=fleet.home)

    def ensure(self) -> str:
        store = self.fleet.store
        running = store.rollouts.running()
        if running is not None:
            return running.id
        deployment = store.deployments.find("a")
        if deployment.production != deployment.base:  # promoted: by hand back to where we began
            with store.database.transaction():
                store.deployments.produce("a", deployment.base, "back to the start")
        self.number += 1
        file = self.fleet.home / "b.toml"
        file.write_text(
            CANDIDATE.format(python=sys.executable, home=str(self.fleet.home / "below"), number=self.number)
        )
        return api.rollout(file, deployment="a", plan=PLAN, where=self.where).id


def check(fleet: Fleet) -> None:
    """Raises AssertionError where the store contradicts itself."""
    store = fleet.store
    with store.database.transaction():
        found = store.rollouts.all(most=1000)
        assert sum(one.state == "running" for one in found) <= 1
        for one in found:
            judged = store.database.row(
                "SELECT COUNT(*) AS n FROM requests WHERE rollout = ? AND judged = 1", (one.id,)
            )
            counted = store.database.row(
                "SELECT COUNT(*) AS n FROM requests WHERE rollout = ? AND judged = 1 AND NOT (outcome = 'invalid' OR "
                "(outcome = 'left' AND ttft_ms IS NOT NULL))",
                (one.id,),
            )
            assert one.judged.get("num_units", 0) == counted["n"] <= judged["n"], (one.id, one.judged, counted)
            assert (one.ended_at is None) == (one.state == "running")
            if one.state == "promoted":
                assert one.verdict().verdict == "pass", one
                assert any(witness.verdict == "pass" for witness in store.versions.evidence(one.candidate))
        stages = Counter(version.stage for version in store.versions.all())
        assert stages["production"] == 1, stages


def one_round(seed: int, kills: int) -> dict:
    """So many kills on a fleet of its own."""
    rng, killed, back = random.Random(seed), Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "a.toml").write_text('[engine]\nkind = "fake"\nscript = "echo+itl:lognormal(3,0.3)"\n')
        fleet = Fleet(home, home / "a.toml")
        try:
            fleet.start_server()
            fleet.start_controller()
            rollouts = Rollouts(fleet)
            with Callers(fleet.url, 4) as asking:
                for number in range(kills):
                    rollouts.ensure()
                    time.sleep(rng.uniform(0.2, 4.0))
                    victim = rng.choice(("controller", "server", "engine"))
                    engines = fleet.engines()
                    victim = victim if victim != "engine" or engines else "controller"
                    at = time.time()
                    if victim == "controller":
                        kill(fleet.controller.pid)
                        fleet.controller.wait()
                        fleet.start_controller()
                    elif victim == "server":
                        kill(fleet.server.pid)
                        fleet.server.wait()
                        fleet.start_server()
                    else:
                        kill(rng.choice(engines))
                    wait(lambda at=at: asking.last_ok > at, 120)
                    back.append(time.time() - at)
                    killed[victim] += 1
                    check(fleet)
                    print(f"{number + 1}: {victim} killed, traffic after {back[-1]:.2f} s, consistent", flush=True)
                running = fleet.store.rollouts.running()
                if running is not None:
                    wait(lambda: fleet.store.rollouts.find(running.id).state != "running", 240)
            check(fleet)
            ends = Counter(one.state for one in fleet.store.rollouts.all(most=1000))
        finally:
            fleet.stop()
    return {"killed": killed, "ends": ends, "callers": asking.counts, "back_s": back}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--round", type=int, default=10, help="kills of one fleet; rounds that ended are kept")
    parser.add_argument("--rounds", type=int, default=1000, help="at most so many now; run it again")
    args = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    keys = [f"{seed}/{args.round}" for seed in range(math.ceil(args.kills / args.round))]
    for seed, key in enumerate(keys):
        if key not in kept and args.rounds > 0:
            args.rounds -= 1
            kept[key] = one_round(seed, args.round)
            KEPT.write_text(json.dumps(kept))
    if set(keys) <= set(kept):
        write([kept[key] for key in keys])


def write(rounds: list[dict]) -> None:
    """The report of all rounds."""
    total = {name: Counter() for name in ("killed", "ends", "callers")}
    for one in rounds:
        for name, counts in total.items():
            counts.update(one[name])
    back = [seconds for one in rounds for seconds in one["back_s"]]
    others = ", ".join(f"{n} × {kind}" for kind, n in total["callers"].items() if kind != "ok")
    rows = [
        {"figure": "kills", "value": ", ".join(f"{n} × {name}" for name, n in sorted(total["killed"].items()))},
        {"figure": "rollouts", "value": ", ".join(f"{n} {name}" for name, n in sorted(total["ends"].items()))},
        {"figure": "answers that callers got", "value": total["callers"]["ok"]},
        {"figure": "other ends that callers saw", "value": others or "none"},
        {"figure": "seconds until traffic went on, median", "value": round(statistics.median(back), 2)},
        {"figure": "seconds until traffic went on, most", "value": round(max(back), 2)},
        {"figure": "contradictions in the store", "value": 0},
    ]
    body = (
        "After every kill the store was checked (one rollout at most runs, judged requests are judged once, what was "
        "promoted has passed, one version is production), and a caller had to get an answer again. A server that was "
        "killed is started anew, which is most of the time that callers wait.\n\n"
    )
    report.write("rollout_kills", "Kills during rollouts", body + report.table(rows), {"rounds": rounds})


if __name__ == "__main__":
    main()
