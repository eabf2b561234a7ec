"""What a judge concludes, and when a rollout promotes, holds or rolls back."""

from __future__ import annotations

import json
import random

import pytest
from pydantic import ValidationError

from temper.errors import Invalid
from temper.fleet.judge import Judge, Unit
from temper.fleet.plan import Guardrail, Plan, parse_steps
from temper.fleet.power import fixed_units_needed, units_needed
from temper.fleet.rollouts import decide

RNG = random.Random(1)


def unit(in_candidate: bool, share: float = 0.5, *, slower: float = 1.0, **how) -> Unit:
    found = {"failed": False, "ttft_ms": 20.0, "e2e_ms": 100 * slower * RNG.lognormvariate(0, 0.3), "output_tokens": 30}
    return Unit(in_candidate, share, **{**found, "wrong": False, **how})


def fed(plan: Plan, num: int, candidate=lambda number: {}) -> Judge:
    """A judge that saw `num` units, every other one of the candidate."""
    judge = Judge(plan)
    for number in range(num):
        judge.observe(unit(bool(number % 2), **(candidate(number) if number % 2 else {})))
    return judge


def test_equal_arms_pass_once_there_is_enough_of_them():
    few, many = fed(Plan(), 200).verdict(), fed(Plan(), 4000).verdict()
    assert few.verdict == "inconclusive"
    assert many.verdict == "pass", many.reason
    assert many.interval[0] <= 0 <= many.interval[1]


@pytest.mark.parametrize(
    ("metric", "candidate"),
    [
        ("errors", lambda number: {"failed": number % 20 == 1, "e2e_ms": None, "ttft_ms": None}),
        ("wrong", lambda number: {"wrong": number % 20 == 1}),
        ("e2e", lambda number: {"slower": 1.3}),
        ("ttft", lambda number: {"ttft_ms": 40.0 + RNG.random()}),
        ("output", lambda number: {"output_tokens": 15 + RNG.randrange(3)}),
        ("output", lambda number: {"output_tokens": 60 + RNG.randrange(3)}),
        ("p99", lambda number: {"slower": 8.0 if number % 40 == 1 else 0.95}),
    ],
)
def test_harm_of_each_kind_fails(metric, candidate):
    judge = Judge(Plan())
    for number in range(6000):
        how = (
            candidate(number)
            if number % 2
            else {"ttft_ms": 20.0 + RNG.random(), "output_tokens": 30 + RNG.randrange(3)}
        )
        judge.observe(unit(bool(number % 2), **how))
    verdict = judge.verdict()
    assert verdict.verdict == "fail", verdict.reason
    assert metric in {one.metric for one in verdict.guardrails if one.verdict == "fail"}


def test_a_target_must_be_shown_better():
    plan = Plan(target="e2e")
    assert fed(plan, 3000, lambda number: {"slower": 0.8}).verdict().verdict == "pass"
    assert fed(plan, 3000).verdict().verdict == "inconclusive"
    worse = fed(plan, 3000, lambda number: {"slower": 1.2}).verdict()
    assert (worse.verdict, worse.metric) == ("fail", "e2e")
    assert worse.effect == pytest.approx(0.2, abs=0.06)


def test_the_state_is_json_from_which_the_judge_goes_on():
    half, whole = Judge(Plan()), Judge(Plan())
    seen = [unit(bool(number % 2)) for number in range(600)]
    for one in seen:
        whole.observe(one)
    for one in seen[:300]:
        half.observe(one)
    resumed = Judge.restored(Plan(), json.loads(json.dumps(half.state())))
    for one in seen[300:]:
        resumed.observe(one)
    assert resumed.verdict() == whole.verdict()


def test_a_new_share_begins_anew_what_a_change_of_load_would_blur():
    judge = fed(Plan(), 400)
    before = judge.seen("errors")
    judge.next_step()
    assert judge.seen("errors") == before
    assert judge.seen("e2e")[0] is None
    assert (judge.num_units, judge.num_in_step) == (400, 0)


# -- decisions ---------------------------------------------------------------------------------------


def of(plan: Plan, judge: Judge, step: int = 0, step_age_s: float = 1e3, age_s: float = 1e3) -> str:
    return decide(plan, step, judge, step_age_s, age_s).do


def test_without_traffic_it_holds_and_then_gives_up():
    plan = Plan(max_s=3600)
    assert of(plan, Judge(plan)) == "hold"
    assert of(plan, Judge(plan), age_s=3600) == "give_up"
    assert of(plan, Judge(plan), step=2, age_s=3600) == "give_up"


def test_a_step_needs_its_requests_and_its_time():
    plan = Plan(min_requests=100, min_s=60)
    judge = fed(plan, 100)
    assert of(plan, fed(plan, 99)) == "hold"
    assert of(plan, judge, step_age_s=59) == "hold"
    assert of(plan, judge, step_age_s=60) == "step"


def test_the_last_step_needs_the_evidence():
    plan = Plan(min_requests=100)
    assert of(plan, fed(plan, 200), step=2) == "hold"
    assert of(plan, fed(plan, 4000), step=1) == "step"
    assert of(plan, fed(plan, 4000), step=2) == "promote"
    assert of(plan.model_copy(update={"max_requests": 200}), fed(plan, 200), step=2) == "give_up"


def test_harm_rolls_back_at_any_step():
    plan = Plan()
    judge = fed(plan, 400, lambda number: {"failed": True, "e2e_ms": None, "ttft_ms": None})
    assert [of(plan, judge, step=step, step_age_s=0, age_s=0) for step in range(3)] == ["roll_back"] * 3


# -- plans -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": (0.5, 0.25, 1.0)}, "ascend to 1"),
        ({"steps": (0.5,)}, "ascend to 1"),
        ({"steps": (1.0,)}, "at least one share below 1"),
        (
            {"guardrails": (Guardrail(metric="e2e", tolerance=0.1), Guardrail(metric="e2e", tolerance=0.2))},
            "one guardrail",
        ),
        ({"guardrails": ()}, "nothing is promoted unseen"),
    ],
)
def test_plans_that_cannot_be(fields, message):
    with pytest.raises(ValidationError, match=message):
        Plan(**fields)


def test_steps_are_percentages():
    assert parse_steps("5, 25,100") == (0.05, 0.25, 1.0)
    with pytest.raises(Invalid, match="percentages such as"):
        parse_steps("a lot")


def test_one_budget_covers_metrics_and_steps():
    plan = Plan(target="e2e")
    spent = {metric: alpha * (1 if metric in ("errors", "wrong") else 3) for metric, alpha in plan.alphas.items()}
    assert sum(spent.values()) == pytest.approx(plan.alpha)


def test_traffic_is_planned_for_power():
    plan = Plan()
    slow, slower = (units_needed(plan, "e2e", effect, spread=0.5) for effect in (0.1, 0.2))
    assert slow > 2 * slower > 2 * fixed_units_needed(plan, "e2e", 0.2, spread=0.5) > 0
    assert units_needed(plan, "errors", 0.01) > 2 * units_needed(plan, "errors", 0.03)
