"""Grids: what is stored is exact, the search never loses, errors name a group that fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import Invalid
from temper.refine.quantize.grid import Grid, round_to_nearest

GRIDS = [Grid(bits, group, symmetric) for bits in (3, 4) for group in (32, 64) for symmetric in (True, False)]


def weight(seed: int, n: int = 24, k: int = 128) -> np.ndarray:
    return (np.random.default_rng(seed).standard_t(4, size=(n, k)) * 0.05).astype(np.float32)


@given(st.integers(0, 1 << 30), st.sampled_from(GRIDS), st.floats(1e-3, 1e3))
def test_scales_and_their_products_with_zeros_are_exact_in_float16(seed, grid, size):
    found = round_to_nearest(weight(seed) * np.float32(size), grid, search=False)
    for values in (found.scales, found.scales * found.zeros):
        assert np.array_equal(values.astype(np.float16).astype(np.float32), values)
    assert found.codes.max() <= grid.top
    assert found.zeros.max() <= grid.top


@given(st.integers(0, 1 << 30), st.sampled_from([*GRIDS, Grid(8, 32, True), Grid(4, 0, True)]))
def test_no_weight_inside_the_range_is_off_by_more_than_half_a_step(seed, grid):
    values = weight(seed)
    found = round_to_nearest(values, grid, search=False)
    step = np.repeat(found.scales, values.shape[1] // found.scales.shape[1], axis=1)
    # Half a step, half a step more where a symmetric grid or a rounded scale clips, and the rounding of the zero.
    assert (np.abs(found.values() - values) <= step * (1.01 + grid.top / 256)).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_the_search_is_never_worse_and_often_better(grid):
    values = weight(5)
    plain = round_to_nearest(values, grid, search=False).values() - values
    searched = round_to_nearest(values, grid).values() - values
    per_group = [np.square(off).reshape(-1, grid.group).sum(axis=1) for off in (plain, searched)]
    assert (per_group[1] <= per_group[0] + 1e-9).all()
    assert per_group[1].sum() < 0.97 * per_group[0].sum()


def test_zeros_stay_zero_and_constant_groups_do_not_divide_by_nothing():
    values = np.zeros((2, 64), np.float32)
    values[0, 32:] = 0.25
    found = round_to_nearest(values, Grid(4, 32))
    assert not found.values()[0, :32].any()
    assert np.isfinite(found.values()).all()
    assert np.allclose(found.values()[0, 32:], 0.25, rtol=0.01)


def test_a_group_that_does_not_divide_names_those_that_do():
    with pytest.raises(Invalid, match="128 does not divide the 576 of 'mlp'") as caught:
        Grid(4, 128).check("mlp", 576)
    assert caught.value.hint == "take 32 or 64"
    with pytest.raises(Invalid, match="multiple of 32 inputs"):
        Grid(4, 48)
    with pytest.raises(Invalid, match="3, 4, 8 bits, but bits is 5"):
        Grid(5)


def test_bits_per_weight_count_scales_and_zeros():
    assert Grid(4, 32, True).bits_per_weight(576) == 4.5
    assert Grid(4, 64, False).bits_per_weight(576) == 4 + 20 / 64
    assert Grid(8, 0, True).bits_per_weight(512) == 8 + 16 / 512
    assert Grid(3, 32, True).bits_per_weight(576) == 3.2 + 16 / 32
