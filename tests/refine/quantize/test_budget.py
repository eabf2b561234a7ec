"""A budget: never passed, spent where it saves most, and close to the best that trying everything finds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import Invalid
from temper.refine.quantize.budget import Choice, share_out

LOSSES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5)


def unit(losses: tuple[float, ...], size: int = 100) -> list[Choice]:
    return [Choice(bits, bits * size, loss) for bits, loss in zip((3, 4, 8), losses, strict=True)]


def test_bits_go_where_they_save_most():
    units = {"tough": unit((0.2, 0.1, 0.0)), "tender": unit((9.0, 3.0, 0.1)), "deaf": unit((0.0, 0.0, 0.0))}
    assert share_out(units, 300, 5.0) == {"tough": 4, "tender": 8, "deaf": 3}


@given(LOSSES, st.floats(3, 8.5))
def test_the_budget_holds_and_nothing_is_far_from_the_best(losses, budget):
    units = {str(number): unit(tuple(sorted(one, reverse=True))) for number, one in enumerate(losses)}
    num_weights = 100 * len(units)
    taken = share_out(units, num_weights, budget)
    chosen = {name: next(one for one in units[name] if one.bits == bits) for name, bits in taken.items()}
    assert sum(one.num_bits_stored for one in chosen.values()) <= budget * num_weights * (1 + 1e-6)
    best = min(
        sum(one.loss for one in way)
        for way in itertools.product(*units.values())
        if sum(one.num_bits_stored for one in way) <= budget * num_weights
    )
    # The relaxation is off by one unit's step at most.
    assert sum(one.loss for one in chosen.values()) <= best + max(one[0].loss - one[-1].loss for one in units.values())


def test_a_budget_that_holds_not_even_the_smallest_is_refused():
    with pytest.raises(Invalid, match=r"3\.00 a weight with scales, but is 2\.50"):
        share_out({"a": unit((1.0, 0.5, 0.0))}, 100, 2.5)
