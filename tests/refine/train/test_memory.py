"""What does not fit is refused with the addition, before any step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from temper.errors import Invalid
from temper.refine.network import open_network
from temper.refine.recipes import make_recipe
from temper.refine.train.loop import prepared
from temper.refine.train.losses import answer_loss
from temper.refine.train.memory import Need, check, estimate
from temper.refine.train.recipe import TrainRecipe
from tests.refine.train.test_loop import SETTINGS, place, run
from tests.tiny_models import write_tiny_folder

__all__ = ["place"]
RESOLVED = {"precision": "fp32", "threads": 1}


def need(model, *changes: str, longest: int = 64) -> Need:
    settings = make_recipe(TrainRecipe, SETTINGS, changes)
    with prepared(model, settings, RESOLVED):
        return estimate(model, settings, answer_loss, longest, RESOLVED)


def test_the_parts_are_what_they_are(tmp_path: Path):
    model = open_network(str(write_tiny_folder(tmp_path / "plain")), tmp_path).model
    trained = sum(parameter.nbytes for parameter in model.parameters())
    found = need(model)
    assert (found.gradients, found.moments) == (trained, 2 * trained)
    assert trained <= found.weights < 1.01 * trained
    assert all(parameter.grad is None for parameter in model.parameters())
    twice = need(model, longest=128)
    assert twice.activations == pytest.approx(2 * found.activations, rel=0.05)
    assert need(model, "checkpoint_activations=true").activations < 0.7 * found.activations
    # What a layer keeps of a token in float32: some 7 rows of hidden size, 3 of the MLP's at least.
    assert found.activations > 2 * 64 * 3 * 4 * (7 * 96 + 3 * 160)
    model.requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    assert need(model).gradients == model.model.norm.weight.nbytes
    assert torch.is_grad_enabled()


def test_a_refusal_says_the_sum_and_what_makes_it_less(place: Path):
    with pytest.raises(
        Invalid, match=r"takes 0.0\d GiB of memory \(0.00 weights .* but there are 0.00 .*\[lora\] table"
    ):
        run(place, "memory_bytes=1048576")
    settings = make_recipe(TrainRecipe, SETTINGS, ["memory_bytes=1000000000"])
    large = Need(weights=1 << 28, gradients=0, moments=0, activations=1 << 30, logits=0, state=0)
    with pytest.raises(
        Invalid, match=r"1.25 GiB of memory \(0.25 weights \+ 1.00 activations\).*smaller batch.micro_batch"
    ):
        check(large, settings)
    check(Need(1 << 28, 0, 0, 1 << 29, 0, 0), settings)
