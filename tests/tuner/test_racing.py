from __future__ import annotations

import pytest

from temper.tuner import racing
from temper.tuner.racing import Standing


def test_noise_is_pooled_over_points():
    assert racing.noise([]) == racing.FIRST_NOISE
    assert racing.noise([[1.0, 1.0]]) == racing.LEAST_NOISE
    assert racing.noise([[0.0, 0.2], [5.0, 5.2]]) == pytest.approx(0.1414, abs=1e-3)


def test_who_is_behind_beyond_noise_is_let_go():
    best = Standing(0.3, 3)
    assert racing.is_beaten([0.1], best, 0.05)
    assert not racing.is_beaten([0.25], best, 0.05)
    assert racing.is_beaten([-0.2], None, 0.05)
    assert not racing.is_beaten([-0.05], None, 0.05)
    assert not racing.is_beaten([], best, 0.05)


def test_a_simpler_point_may_be_behind_by_the_winner_s_curse():
    assert racing.is_as_good([0.30, 0.28, 0.29], [0.35, 0.36, 0.34], 0.04)
    assert not racing.is_as_good([0.10, 0.12, 0.11], [0.35, 0.36, 0.34], 0.04)
