from __future__ import annotations

import pytest

from temper.errors import Invalid
from temper.measure.stats.sequential.budget import evenly, split


def test_shares_are_by_weight_and_add_up():
    parts = split(0.05, {"errors": 2, "p99": 1, "quality": 1})
    assert parts == {"errors": pytest.approx(0.025), "p99": pytest.approx(0.0125), "quality": pytest.approx(0.0125)}
    assert sum(parts.values()) == pytest.approx(0.05)
    assert evenly(0.05, 4) == pytest.approx(0.0125)


@pytest.mark.parametrize(
    ("alpha", "weights", "words"),
    [(0.0, {"a": 1}, "between 0 and 1"), (0.05, {}, "none was given"), (0.05, {"a": 1, "b": 0}, "above 0: b")],
)
def test_what_is_no_budget_is_refused(alpha, weights, words):
    with pytest.raises(Invalid, match=words):
        split(alpha, weights)
    with pytest.raises(Invalid, match="1 or more judgements, not 0"):
        evenly(0.05, 0)
