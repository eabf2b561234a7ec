"""The loss of distillation against its formula written out, and zero where the student is the teacher."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from temper.errors import Invalid
from temper.refine.distill.losses import TOP_IDS, TOP_LOGPROBS, DistillLoss
from temper.refine.distill.recipe import DistillLossConfig
from temper.refine.network import open_network
from temper.refine.train.attention import inputs, side_by_side
from temper.refine.train.batches import collate
from temper.refine.train.examples import Example
from tests.tiny_models import write_tiny_folder


@pytest.fixture
def model(tmp_path: Path):
    write_tiny_folder(tmp_path / "teacher", num_hidden_layers=5)
    return open_network(str(tmp_path / "teacher"), tmp_path).model


def batch_of(model, top_k: int):
    """Two examples with what `model` itself predicts."""
    random = np.random.default_rng(1)
    plain = [Example(random.integers(0, 256, size).astype(np.int32), np.arange(size) > 2) for size in (9, 6)]
    found = []
    for example in plain:
        batch = collate([example])
        with torch.inference_mode(), side_by_side(model):
            rows = model(**inputs(batch), logits_to_keep=batch.rows).logits[0].log_softmax(dim=-1)
        top = rows.topk(top_k)
        extras = {TOP_IDS: top.indices.numpy().astype(np.int32), TOP_LOGPROBS: top.values.numpy().astype(np.float16)}
        found.append(Example(example.token_ids, example.learned, extras))
    return collate(found)


def losses(config: DistillLossConfig, student, teacher, batch):
    loss = DistillLoss(config, student, copy.deepcopy(teacher))
    with side_by_side(student):
        return loss(student, batch)


def test_a_student_that_is_the_teacher_loses_nothing_but_the_text(model):
    batch = batch_of(model, 320)
    found = losses(DistillLossConfig(top_k=320), model, model, batch)
    assert found.parts["soft"] == pytest.approx(0, abs=1e-3)
    assert found.parts["hidden"] == pytest.approx(0, abs=1e-6)
    assert found.parts["hard"] > 1
    assert float(found.total.detach()) == pytest.approx(sum(found.parts.values()), rel=1e-5)


def test_the_formula(model):
    batch, student = batch_of(model, 320), copy.deepcopy(model)
    with torch.no_grad():
        student.model.layers[0].mlp.down_proj.weight.mul_(3)
    config = DistillLossConfig(top_k=320, temperature=2.0, alpha=0.25, gamma=0.5)
    found = losses(config, student, model, batch)

    def run(which):
        with torch.inference_mode(), side_by_side(which):
            out = which(**inputs(batch), logits_to_keep=batch.rows, output_hidden_states=True)
        return out.logits[0], [out.hidden_states[at][0, batch.rows] for at in (2, 4)]

    (ours, our_states), (theirs, their_states) = run(student), run(model)
    p, q = (theirs / 2).log_softmax(-1), (ours / 2).log_softmax(-1)
    assert found.parts["soft"] == pytest.approx(0.25 * 4 * float((p.exp() * (p - q)).sum()), rel=2e-3)
    hard = torch.nn.functional.cross_entropy(ours, batch.targets, reduction="sum")
    assert found.parts["hard"] == pytest.approx(0.75 * float(hard), rel=1e-4)
    pairs = zip(our_states, their_states, strict=True)
    far = sum(((s - t).square().sum(-1) / t.square().sum(-1)).sum() for s, t in pairs)
    assert found.parts["hidden"] == pytest.approx(0.5 * float(far) / 2, rel=1e-4)


def test_the_student_learns_and_the_teacher_does_not(model):
    batch, student = batch_of(model, 8), copy.deepcopy(model)
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        student.model.layers[1].mlp.up_proj.weight.mul_(2)
    loss = DistillLoss(DistillLossConfig(top_k=8), student, teacher)
    with side_by_side(student):
        loss(student, batch).total.backward()
    assert float(student.model.layers[0].mlp.up_proj.weight.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert len(teacher.model.layers) == 4  # the last one is never looked at


def test_hidden_states_of_two_widths_are_refused(model, tmp_path: Path):
    write_tiny_folder(tmp_path / "wide", hidden_size=192, num_hidden_layers=2)
    wide = open_network(str(tmp_path / "wide"), tmp_path).model
    with pytest.raises(Invalid, match="student's have 96 numbers and the teacher's 192"):
        DistillLoss(DistillLossConfig(), model, wide)
    assert DistillLoss(DistillLossConfig(gamma=0), model, None)
