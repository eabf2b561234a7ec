"""What calibration sees is what the layers read, and sensitivity is what a whole pass would have said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from temper.errors import Invalid
from temper.refine.network import open_network
from temper.refine.quantize.calibrate import Walk
from temper.refine.quantize.grid import Grid, round_to_nearest
from temper.refine.quantize.linears import linears, units, weight_of
from temper.refine.quantize.sensitivity import measure
from tests.tiny_models import write_tiny_folder

WINDOWS = [[int(token) for token in row] for row in np.random.default_rng(0).integers(0, 250, (3, 48))]


def silent(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(params=["llama", "qwen2", "qwen3"])
def model(request, tmp_path: Path):
    return open_network(str(write_tiny_folder(tmp_path / "plain", request.param)), tmp_path).model


def test_moments_are_those_of_what_the_layers_read(model):
    seen: dict[str, list[torch.Tensor]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, given, name=name: seen.setdefault(name, []).append(given[0]))
        for name, layer in linears(model).items()
    ]
    with torch.inference_mode():
        for window in WINDOWS:
            model(torch.tensor([window]), use_cache=False)
    for hook in hooks:
        hook.remove()
    walk = Walk(model, WINDOWS)
    for number in range(len(walk.layers)):
        found = walk.inputs(number)
        assert found["self_attn.q_proj"] is found["self_attn.v_proj"]
        assert found["mlp.gate_proj"] is found["mlp.up_proj"]
        for name, inputs in found.items():
            rows = torch.cat([one[0] for one in seen[f"model.layers.{number}.{name}"]]).numpy()
            np.testing.assert_allclose(inputs.second_moments, rows.T @ rows / len(rows), rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(inputs.mean_magnitude, np.abs(rows).mean(axis=0), rtol=1e-4)
            by_window = [one[0].numpy() for one in seen[f"model.layers.{number}.{name}"]]
            assert inputs.chance == pytest.approx(chance([one.T @ one / len(one) for one in by_window]), rel=1e-2)
        walk.advance(number, changed=False)


def chance(moments: list[np.ndarray]) -> float:
    """The variance of the mean of `moments` over its square, off the diagonal."""
    others = ~np.eye(len(moments[0]), dtype=bool)
    mean = np.mean(moments, axis=0)
    variance = np.var(moments, axis=0, ddof=1) / len(moments)
    return float(variance[others].sum() / np.square(mean[others]).sum())


def test_one_window_does_not_say_how_much_is_chance(model):
    assert Walk(model, WINDOWS[:1]).inputs(0)["mlp.down_proj"].chance == 0


def test_a_changed_layer_is_what_the_next_one_reads(model):
    walk = Walk(model, WINDOWS)
    walk.inputs(0)
    with torch.no_grad():
        walk.layers[0].mlp.down_proj.weight *= 0.5
    walk.advance(0, changed=True)
    after = walk.inputs(1)["self_attn.q_proj"].second_moments
    fresh = Walk(model, WINDOWS)
    fresh.inputs(0)
    fresh.advance(0, changed=False)
    np.testing.assert_allclose(after, fresh.inputs(1)["self_attn.q_proj"].second_moments)


def test_windows_of_different_lengths_and_inputs_that_are_none_are_refused(model):
    with pytest.raises(Invalid, match="must have one length"):
        Walk(model, [WINDOWS[0], WINDOWS[1][:-1]])
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[0] = float("nan")
    with pytest.raises(Invalid, match="must be finite while it reads calibration text"):
        Walk(model, WINDOWS).inputs(0)


def test_sensitivity_is_the_divergence_that_a_whole_pass_shows(model):
    grids = [Grid(3, 32), Grid(8, 32)]
    before = {name: weight_of(layer).copy() for name, layer in linears(model).items()}

    def predicted() -> torch.Tensor:
        with torch.inference_mode():
            return torch.log_softmax(model(torch.tensor([WINDOWS[0]]), use_cache=False).logits[0], -1)

    truth = predicted()
    found = measure(model, grids, WINDOWS[:1], silent)
    assert torch.equal(predicted(), truth), "the model must be as it was"
    unit = "model.layers.1.mlp"
    for name in units(before)[unit]:
        model.get_submodule(name).weight.data = torch.from_numpy(round_to_nearest(before[name], grids[0]).values())
    whole = float((truth.exp() * (truth - predicted())).sum(-1).mean())
    coarse, fine = found[unit]
    assert coarse.loss == pytest.approx(whole, rel=1e-3, abs=1e-6)
    assert 0 <= fine.loss < 0.1 * coarse.loss
    assert (coarse.bits, coarse.num_bits_stored) == (3, pytest.approx(3 * 96 * 160 * 3.8))
