from __future__ import annotations

import pytest

from temper.errors import Invalid
from temper.measure.workload.schema import resolve
from temper.tuner.plan import Plan, plan
from temper.tuner.settings import Budget, Settings, parse_budget, settings
from tests.tuner.studies import LADDERS, default


@pytest.mark.parametrize(
    ("text", "budget"),
    [("40 trials", Budget(trials=40)), ("1 trial", Budget(trials=1)), ("30min", Budget(seconds=1800)),
     ("2h", Budget(seconds=7200)), ("90 s", Budget(seconds=90)), ("1.5 hours", Budget(seconds=5400))],
)  # fmt: skip
def test_budgets_as_people_write_them(text, budget):
    assert parse_budget(text) == budget
    assert budget.text


@pytest.mark.parametrize("text", ["", "soon", "30", "0min", "1.5 trials", "-3min"])
def test_other_budgets_are_refused(text):
    with pytest.raises(Invalid, match="budget"):
        parse_budget(text)


def test_a_plan_comes_back_from_the_ledger_as_it_was():
    made = Plan(
        resolve("low-latency"),
        (("default", default()), ("other", default())),
        Settings(Budget(trials=9), seed=4),
        objective="p99 -20 %",
        ladders=LADDERS,
        most={"threads": 2},
        without=("kv.*",),
    )
    assert plan(made.document()) == made
    assert settings(made.settings.document()) == made.settings
    assert plan(made.document()).space().document() == made.space().document()


def test_the_workload_s_limits_hold_unless_they_are_left_out():
    made = Plan(resolve("low-latency"), (("default", default()),), Settings(Budget(trials=9)))
    assert [limit.metric for limit in made.goal().limits] == ["ttft_ms.p90", "tpot_ms.p90"]
    bare = Plan(resolve("low-latency"), (("default", default()),), Settings(Budget(trials=9)), slo=False)
    assert bare.goal().limits == ()
