from __future__ import annotations

import statistics
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import Invalid
from temper.measure.workload.lengths import Fixed, LogNormal, Normal, Uniform, draw, parse


def draws(length, count=4000, seed="a"):
    rng = Random(seed)
    return [draw(length, rng) for _ in range(count)]


def test_each_distribution_has_the_shape_it_promises():
    assert set(draws(Fixed(tokens=7))) == {7}
    assert set(draws(Uniform(low=3, high=6))) == {3, 4, 5, 6}
    normal = draws(Normal(mean=200, sd=20))
    assert statistics.fmean(normal) == pytest.approx(200, abs=2)
    assert statistics.stdev(normal) == pytest.approx(20, rel=0.1)
    skewed = draws(LogNormal(median=100, sigma=0.8))
    assert statistics.median(skewed) == pytest.approx(100, rel=0.06)
    assert statistics.fmean(skewed) == pytest.approx(100 * 2.718281828 ** (0.8**2 / 2), rel=0.1)


def test_the_same_seed_draws_the_same():
    length = LogNormal(median=100, sigma=0.8)
    assert draws(length, 50) == draws(length, 50)
    assert draws(length, 50) != draws(length, 50, seed="b")


@given(st.integers(1, 500), st.integers(0, 500), st.floats(0.1, 1e6), st.floats(0, 5), st.integers())
def test_bounds_are_never_left(low, more, median, sigma, seed):
    length = LogNormal(median=median, sigma=sigma, low=low, high=low + more)
    assert all(low <= value <= low + more for value in draws(length, 20, seed))


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("128", Fixed(tokens=128)),
        ("64-512", Uniform(low=64, high=512)),
        ("normal:200,30", Normal(mean=200, sd=30)),
        ("lognormal:200,0.8", LogNormal(median=200, sigma=0.8)),
    ],
)
def test_lengths_are_read_as_they_are_typed(text, length):
    assert parse(text) == length


@pytest.mark.parametrize("text", ["", "x", "-5", "0", "512-64", "normal:200", "poisson:3,4", "normal:a,b", "1-2-3"])
def test_what_is_no_length_is_told_how_to_write_one(text):
    with pytest.raises(Invalid, match=r"write 128, 64-512, normal:MEAN,SD"):
        parse(text)
