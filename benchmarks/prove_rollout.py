"""Whether rollouts decide rightly: 1,000 simulated ones of each kind, looked at after every request.

A/A with a target, so that a promotion is as false as a rollback: at most 67 false verdicts (5 % with its 99 % bound).
Planted harm (20 % slower, failing 1 %, wrong on 3 %) at the traffic planned for power 0.97: at least 950 rolled back.
A planted improvement of 20 % promoted. Beside it, what a test of fixed size needs. Experiments run in blocks that are
kept in `build/prove/rollout.json`, so a run that was ended goes on.

    make prove rollout ARGS='--num 1000'
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from rollout_simulation import Arm, Traffic, simulate

import report
from temper.fleet.plan import Plan
from temper.fleet.power import POWER, fixed_units_needed, units_needed

KEPT = Path(__file__).parent.parent / "build" / "prove" / "rollout.json"
BLOCK = 250
LONGEST_AA = 3000
SPREAD = math.sqrt(0.4**2 + 0.25**2 + 0.3**2 / 2)
"""Of the log of a latency in the simulated traffic: its own, the load's, and the trend's."""

TARGET, NO_HARM = Plan(target="e2e"), Plan()
KINDS = {
    "A/A": (TARGET, Arm(), LONGEST_AA, None, "e2e", 0.2),
    "20 % slower": (NO_HARM, Arm(slower=0.2), None, "rolled_back", "e2e", 0.2),
    "failing 1 %": (NO_HARM, Arm(failing=0.01), None, "rolled_back", "errors", 0.01),
    "wrong on 3 %": (NO_HARM, Arm(wrong=0.03), None, "rolled_back", "wrong", 0.03),
    "20 % faster": (TARGET, Arm(slower=-1 / 6), LONGEST_AA, "promoted", "e2e", 0.2),
}
"""Name: plan, candidate, longest, the right end, and the difference that its traffic is planned for."""


def planned(name: str) -> tuple[int, int]:
    """Units at which a rollout ends, and what a fixed test needs."""
    plan, _, longest, _, metric, effect = KINDS[name]
    return longest or units_needed(plan, metric, effect, spread=SPREAD), fixed_units_needed(
        plan, metric, effect, spread=SPREAD
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=10_000, help="at most so many are computed now; run it again")
    args = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(math.ceil(args.num / BLOCK)):
        for name, (plan, candidate, *_) in KINDS.items():
            key = f"{name}/{seed}/{BLOCK}"
            if key not in kept and args.blocks == 0:
                return
            if key not in kept:
                args.blocks -= 1
                ends = simulate(plan, Traffic(BLOCK, Arm(), candidate, 1000 * seed + 7), planned(name)[0])
                kept[key] = {"state": ends.state.tolist(), "at": ends.at.tolist()}
                KEPT.write_text(json.dumps(kept))
                print(
                    key,
                    {state: ends.state.tolist().count(state) for state in sorted(set(ends.state.tolist()))},
                    flush=True,
                )
    rows = [row(name, kept, math.ceil(args.num / BLOCK)) for name in KINDS]
    body = (
        "Each rollout goes 5 → 25 → 50 → 100 % with the default guardrails (errors, end-to-end time, its 99th "
        "percentile, first token, length, wrong answers) at α = 0.05 over everything, and is looked at after every "
        "request. Latencies are log-normal around a load that drifts and is autocorrelated. The traffic of planted "
        f"harm ends where it was planned to be found with probability {POWER}; a fixed test at the same α needs what "
        "stands beside it, always.\n\n"
    )
    report.write(
        "rollout",
        "Simulated rollouts: false verdicts, power, requests to decision",
        body + report.table(rows),
        {"rows": rows},
    )


def row(name: str, kept: dict, num_blocks: int) -> dict[str, object]:
    blocks = [kept[f"{name}/{seed}/{BLOCK}"] for seed in range(num_blocks)]
    states = [state for block in blocks for state in block["state"]]
    right = KINDS[name][3]
    at = [n for block in blocks for n, state in zip(block["at"], block["state"], strict=True) if state != "open"]
    limit, fixed = planned(name)
    return {
        "candidate": name,
        "rollouts": len(states),
        "promoted": states.count("promoted"),
        "rolled back": states.count("rolled_back"),
        "no verdict": states.count("open"),
        "must": "≤ 67 verdicts" if right is None else f"{right.replace('_', ' ')}",
        "requests at most": limit,
        "to decision, median": float(np.median(at)) if at else "–",
        "to decision, 95 %": float(np.percentile(at, 95)) if at else "–",
        "fixed test": fixed,
    }


if __name__ == "__main__":
    main()
