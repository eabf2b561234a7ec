from __future__ import annotations

import json

import numpy as np
import pytest

from temper.errors import Invalid
from temper.measure.stats.sequential.bounded import BoundedMean, EmpiricalBernstein
from tests.measure.stats.nominal import most_errors

ALPHA = 0.1


def scores(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Skewed, with a lump at 0 and values in between; mean 0.24."""
    return np.where(rng.random(size) < 0.4, 0.0, rng.beta(2, 3, size))


def test_the_mean_is_missed_at_any_look_no_oftener_than_alpha():
    values = scores(np.random.default_rng(1), (200, 120))
    watched = BoundedMean(ALPHA, batch=(200,))
    missed = np.zeros(200, dtype=bool)
    for at in range(values.shape[1]):
        watched.observe(values[:, at])
        low, high = watched.bounds()
        missed |= (low > 0.24) | (high < 0.24)
    assert missed.sum() <= most_errors(ALPHA, 200)
    assert (high - low).mean() < 0.2


def test_nor_by_the_closed_form_which_is_wider():
    values = scores(np.random.default_rng(2), (400, 250))
    missed = 0
    for row in values.tolist():
        closed = EmpiricalBernstein(ALPHA)
        ends = []
        for value in row:
            closed.observe(value)
            ends.append(closed.interval())
        missed += any(not low <= 0.24 <= high for low, high in ends)
    assert missed <= most_errors(ALPHA, 400)
    hedged = BoundedMean(ALPHA)
    for value in values[-1]:
        hedged.observe(value)
    widths = [high - low for low, high in (hedged.interval(), closed.interval())]
    assert widths[0] < widths[1] < 0.4


def test_limits_of_any_kind_and_restarts():
    rng = np.random.default_rng(3)
    values = rng.uniform(-1, 3, 60).tolist()
    hedged, closed = BoundedMean(ALPHA, -2, 4), EmpiricalBernstein(ALPHA, -2, 4)
    straight = BoundedMean(ALPHA, -2, 4)
    assert hedged.interval() == closed.interval() == (-2, 4)
    assert hedged.estimate is None
    for value in values:
        hedged = BoundedMean.restored(json.loads(json.dumps(hedged.state())))
        closed = EmpiricalBernstein.restored(json.loads(json.dumps(closed.state())))
        for one in (hedged, closed, straight):
            one.observe(value)
    assert hedged.interval() == straight.interval()
    assert hedged.estimate == pytest.approx(np.mean(values))
    for low, high in (hedged.interval(), closed.interval()):
        assert -2 < low < 1 < high < 4


def test_values_outside_are_refused():
    with pytest.raises(Invalid, match=r"within 0 and 1, not 1\.5"):
        BoundedMean(ALPHA).observe(1.5)
    with pytest.raises(Invalid, match=r"within 0 and 1, not -1"):
        EmpiricalBernstein(ALPHA).observe(-1)
    with pytest.raises(Invalid, match="must differ and ascend"):
        BoundedMean(ALPHA, 1, 1)
