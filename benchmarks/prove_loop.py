"""The loop, once around, for real: more callers come, the profile misses its promise, and a better one takes over.

A server with a profile made for two callers promises a time to the first token. Twelve callers come. The loop notices,
tunes for the traffic that it saw, puts the winner beside production, and promotes it or rolls it back. The report is
the record that it wrote.

    make prove loop ARGS='--trials 8'
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rollout_servers import Callers, Fleet

import report
from temper import api
from temper.fleet.controller import Controller
from temper.fleet.loop import Loop
from temper.fleet.plan import Guardrail, Plan
from temper.profile import store as profiles

PLAN = Plan(
    steps=(0.25, 0.5, 1.0),
    target="ttft",
    min_requests=60,
    min_s=2.0,
    max_s=900.0,
    guardrails=(Guardrail(metric="errors", tolerance=0.1, proven=True), Guardrail(metric="e2e", tolerance=0.25)),
)
"""Wide, for a proof of some minutes: the target decides."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--window", type=float, default=60.0, help="seconds that a look covers")
    parser.add_argument("--callers", type=int, default=12, help="how many come in the end")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        mine = api.profile("default", max_sequences=2, **{"slo.ttft_p99_ms": 2000.0})
        profiles.save(mine, home / "mine.toml")
        where = api.place(home=home)
        fleet = Fleet(home, home / "mine.toml")

        studies = []

        def tune(workload, incumbent):
            found = api.tune(
                workload,
                incumbent,
                objective="ttft p90",
                budget=f"{args.trials} trials",
                knobs=("max_sequences", "max_step_tokens"),
                slo=False,
                suite="none",
                where=where,
            )
            studies.append(found)
            return found

        try:
            fleet.start_server()
            controller = Controller(fleet.store)
            loop = Loop(fleet.store, "mine", controller, tune, window_s=args.window, plan=PLAN)
            with Callers(fleet.url, 2, max_tokens=24):
                time.sleep(args.window)
                calm = loop.turn()
                print(calm.outcome, calm.prose(), flush=True)
            with Callers(fleet.url, args.callers, max_tokens=24):
                time.sleep(args.window)
                busy = loop.turn()
                print(busy.outcome, busy.prose(), flush=True)
            controller.leave()
            production = fleet.store.versions.find(fleet.store.deployments.find("mine").production)
            pages = {f"loop_study_{n}": api.study_page(found) for n, found in enumerate(studies, 1)}
            rollouts = [rollout.id for rollout in fleet.store.rollouts.all()]
            pages |= {f"loop_rollout_{n}": api.rollout_page(id, where) for n, id in enumerate(rollouts, 1)}
        finally:
            fleet.stop()
    changes = profiles.diff(mine, production.profile)
    turns = [
        {"turn": name, "outcome": turn.outcome} for name, turn in (("two callers", calm), (f"{args.callers}", busy))
    ]
    for name, page in pages.items():
        (report.HERE / f"{name}.html").write_text(page, "utf-8")
    body = "\n\n".join(
        [
            f"**With two callers.** {calm.prose()}",
            f"**With {args.callers}.** {busy.prose()}",
            "What is served now differs from what was served first in: "
            + ("; ".join(f"`{one.path}` {one.before} → {one.after}" for one in changes) or "nothing")
            + ".",
            report.table(turns),
            "Drawn: " + ", ".join(f"[{name}.html]({name}.html)" for name in pages) + ".",
        ]
    )
    report.write("loop", "The loop, once around", body, {"turns": [calm.sentences, busy.sentences]})


if __name__ == "__main__":
    main()
