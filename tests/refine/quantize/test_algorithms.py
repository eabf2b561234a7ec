"""GPTQ and AWQ against rounding to nearest, on layers whose inputs are correlated; NF4 against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from temper.errors import Invalid
from temper.refine.quantize.awq import Inputs, fold, search_scales
from temper.refine.quantize.gptq import gptq
from temper.refine.quantize.grid import Grid, round_to_nearest
from temper.refine.quantize.nf4 import LEVELS, dequantize_nf4, quantize_nf4

GRIDS = [Grid(4, 32, True), Grid(4, 64, True), Grid(4, 32, False), Grid(3, 32, False)]


@pytest.fixture(scope="module")
def layer() -> tuple[np.ndarray, Inputs]:
    """A weight [48, 128] and what calibration would see of inputs that are correlated and of unequal size."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(128, 128)) * np.exp(rng.normal(size=128))
    rows = (rng.normal(size=(4000, 128)) @ mixing).astype(np.float32)
    weight = (rng.standard_t(4, size=(48, 128)) * 0.05).astype(np.float32)
    return weight, Inputs(rows.T.astype(np.float64) @ rows / len(rows), np.abs(rows).mean(axis=0))


def output_error(values: np.ndarray, weight: np.ndarray, inputs: Inputs) -> float:
    off = (values - weight).astype(np.float64)
    return float(np.einsum("nk,nk->", off @ inputs.second_moments, off))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_gptq_loses_less_than_half_of_what_rounding_loses(layer, grid):
    weight, inputs = layer
    plain = output_error(round_to_nearest(weight, grid).values(), weight, inputs)
    for act_order in (True, False):
        found = gptq(weight, inputs.second_moments, grid, act_order=act_order)
        assert output_error(found.values(), weight, inputs) < 0.5 * plain


def test_gptq_with_uncorrelated_equal_inputs_is_rounding_to_nearest(layer):
    weight, _ = layer
    grid = Grid(4, 32)
    found = gptq(weight, np.eye(weight.shape[1]), grid)
    expected = round_to_nearest(weight, grid, np.ones(weight.shape[1], np.float32))
    assert np.array_equal(found.codes, expected.codes)


def test_what_few_tokens_show_by_chance_is_not_made_up_for():
    """160 tokens for 128 inputs: on other text GPTQ is worse than rounding until the moments are shrunk."""
    rng = np.random.default_rng(1)
    mixing = np.eye(128) + 0.05 * rng.normal(size=(128, 128))
    rows = (rng.normal(size=(160, 128)) @ mixing).astype(np.float32)
    weight = (rng.normal(size=(64, 128)) * 0.05).astype(np.float32)
    grid, seen, truth = Grid(4, 32, True), rows.T.astype(np.float64) @ rows / len(rows), mixing.T @ mixing
    other_text = Inputs(truth, np.ones(128, np.float32))
    plain, raw, shrunk = (
        output_error(found.values(), weight, other_text)
        for found in (round_to_nearest(weight, grid), gptq(weight, seen, grid), gptq(weight, seen, grid, shrinkage=0.7))
    )
    assert shrunk < plain < raw


def test_gptq_with_moments_shrunk_to_their_diagonal_is_rounding_to_nearest(layer):
    weight, inputs = layer
    found = gptq(weight, inputs.second_moments, Grid(4, 32), shrinkage=1.0)
    expected = round_to_nearest(weight, Grid(4, 32), np.diag(inputs.second_moments).astype(np.float32))
    assert np.array_equal(found.codes, expected.codes)


def test_gptq_gives_inputs_that_never_fire_no_say(layer):
    weight, inputs = layer
    moments = inputs.second_moments.copy()
    moments[7], moments[:, 7] = 0, 0
    found = gptq(weight, moments, Grid(4, 32))
    assert np.isfinite(found.values()).all()
    assert not found.values()[:, 7].any()


def test_gptq_refuses_moments_that_are_none(layer):
    weight, inputs = layer
    with pytest.raises(Invalid, match="must be finite"):
        gptq(weight, inputs.second_moments * np.nan, Grid(4, 32))
    with pytest.raises(Invalid, match="positive definite"):
        gptq(weight, -inputs.second_moments, Grid(4, 32))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_awq_beats_rounding_by_scaling_what_matters(layer, grid):
    weight, inputs = layer
    plain = output_error(round_to_nearest(weight, grid).values(), weight, inputs)
    found = search_scales([weight], inputs, grid)
    scaled = round_to_nearest(weight * found.scales, grid).values() / found.scales
    assert 0 < found.alpha < 1
    assert output_error(scaled, weight, inputs) < 0.9 * plain


def test_folding_changes_no_output():
    rng = np.random.default_rng(1)
    x, norm = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    up, down = rng.normal(size=(6, 8)).astype(np.float32), rng.normal(size=(4, 6)).astype(np.float32)
    tensors = {"norm": norm, "up": up, "down": down}
    before = ((x * norm) @ up.T) @ down.T
    tensors |= fold(tensors, np.exp(rng.normal(size=8)).astype(np.float32), ["up"], "norm")
    tensors |= fold(tensors, np.exp(rng.normal(size=6)).astype(np.float32), ["down"], "up")
    after = ((x * tensors["norm"]) @ tensors["up"].T) @ tensors["down"].T
    assert not np.array_equal(tensors["up"], up)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_nf4_takes_the_nearest_level_of_each_block():
    values = (np.random.default_rng(2).normal(size=(6, 64)) * 0.1).astype(np.float32)
    packed, maxima = quantize_nf4(values)
    assert packed.shape == (6 * 64 // 2,)
    assert np.array_equal(maxima, np.abs(values).max(axis=1))
    found = dequantize_nf4(packed, maxima, values.shape)
    nearest = np.abs(values[..., None] / maxima[:, None, None] - LEVELS).min(axis=-1)
    np.testing.assert_allclose(np.abs(found - values) / maxima[:, None], nearest, atol=1e-6)
    with pytest.raises(Invalid, match="finite"):
        quantize_nf4(np.full((1, 64), np.nan, np.float32))
