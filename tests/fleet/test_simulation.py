"""Simulated rollouts: the arrays decide as the judge does, equal arms are seldom condemned, planted harm is found.

The thousands are in `make prove rollout`; here are enough to notice a broken rule.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from rollout_simulation import Arm, Traffic, simulate

from temper.fleet.judge import Judge, Unit
from temper.fleet.plan import Plan
from temper.fleet.rollouts import decide

SHORT = Plan(target="e2e", steps=(0.25, 0.5, 1.0), min_requests=60, min_s=0)


def by_judge(plan: Plan, traffic: Traffic, longest: int, which: int) -> tuple[str, int]:
    """The end of one of the experiments, by the code that judges real rollouts."""
    judge, step, shares = Judge(plan), 0, np.array(plan.steps[:-1])
    steps = np.zeros(traffic.num, int)
    for number in range(1, longest + 1):
        one = traffic.next(shares[steps])
        failed = bool(one["failed"][which])
        judge.observe(
            Unit(
                bool(one["in_b"][which]),
                float(shares[step]),
                failed,
                None if failed else math.exp(one["ttft"][which]),
                None if failed else math.exp(one["e2e"][which]),
                None if failed else math.exp(one["output"][which]),  # type: ignore[arg-type]
                None if failed else bool(one["wrong"][which]),
            )
        )
        made = decide(plan, step, judge, 1.0, 1.0)
        if made.do in ("roll_back", "promote"):
            return {"roll_back": "rolled_back", "promote": "promoted"}[made.do], number
        if made.do == "step":
            step += 1
            steps[:] = step
            judge.next_step()
    return "open", longest


@pytest.mark.parametrize("candidate", [Arm(slower=0.6), Arm(failing=0.08), Arm(wrong=0.1), Arm(slower=-0.4)])
def test_the_arrays_decide_as_the_judge_does_at_the_same_request(candidate):
    ends = simulate(SHORT, Traffic(1, Arm(), candidate, seed=3), 700)
    assert (ends.state[0], ends.at[0]) == by_judge(SHORT, Traffic(1, Arm(), candidate, seed=3), 700, 0)


def test_equal_arms_are_seldom_condemned_though_looked_at_after_every_request():
    ends = simulate(SHORT, Traffic(60, Arm(), Arm(), seed=5), 250)
    assert (ends.state != "open").sum() <= 7  # 5 % of 60, with its 99 % bound


def test_gross_harm_is_always_found():
    ends = simulate(SHORT, Traffic(30, Arm(), Arm(failing=0.3), seed=7), 250)
    assert (ends.state == "rolled_back").all()
