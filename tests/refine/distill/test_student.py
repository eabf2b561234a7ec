"""Students are cut where the teacher misses it least, and the teacher stays whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from temper.errors import Invalid
from temper.refine.distill.recipe import StudentConfig
from temper.refine.distill.student import evenly, make_student
from temper.refine.network import Network, open_network
from temper.refine.train.attention import inputs, side_by_side
from temper.refine.train.batches import collate
from temper.refine.train.examples import Example
from tests.tiny_models import write_tiny_folder


def silent(*told):
    pass


@pytest.fixture
def teacher(tmp_path: Path) -> Network:
    write_tiny_folder(tmp_path / "teacher", "qwen3", num_hidden_layers=5)
    return open_network(str(tmp_path / "teacher"), tmp_path)


@pytest.fixture
def examples(teacher: Network) -> list[Example]:
    """What the teacher itself says after three random beginnings."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(3):
        begun = torch.from_numpy(random.integers(0, 256, (1, 4)))
        said = teacher.model.generate(begun, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0)
        found.append(Example(said[0].numpy().astype(np.int32), np.arange(12) > 3))
    return found


def logits(model, examples):
    batch = collate(examples)
    with torch.inference_mode(), side_by_side(model):
        return model(**inputs(batch), logits_to_keep=batch.rows).logits[0]


def test_layers_are_kept_evenly():
    assert evenly(30, 30) == list(range(30))
    assert evenly(30, 1) == [0]
    assert evenly(5, 3) == [0, 2, 4]
    for wanted in range(2, 31):
        kept = evenly(30, wanted)
        assert len(set(kept)) == wanted
        assert (kept[0], kept[-1]) == (0, 29)


def test_a_layer_that_does_nothing_goes_first_and_is_not_missed(teacher: Network, request):
    _make_idle(teacher.model.model.layers[2])
    examples = request.getfixturevalue("examples")  # said by the teacher as it is now
    before = logits(teacher.model, examples)
    model, cut = make_student(teacher, StudentConfig(layers=4), examples, silent)
    assert cut.kept_layers == (0, 1, 3, 4)
    assert cut.rises[2] == pytest.approx(0, abs=1e-5)
    assert model.config.num_hidden_layers == len(model.model.layers) == 4
    torch.testing.assert_close(logits(model, examples), before)


def _make_idle(layer):
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()


def test_the_teacher_stays_as_it_was(teacher: Network, examples):
    before = logits(teacher.model, examples)
    model, cut = make_student(teacher, StudentConfig(layers=2, mlp_width=64, at_once=1), examples, silent)
    assert len(cut.kept_layers) == 2
    torch.testing.assert_close(logits(teacher.model, examples), before, rtol=0, atol=0)
    with torch.no_grad():
        next(model.parameters()).zero_()
    torch.testing.assert_close(logits(teacher.model, examples), before, rtol=0, atol=0)


def test_neurons_that_do_nothing_go_first(teacher: Network, examples):
    with torch.no_grad():
        for layer in teacher.model.model.layers:
            layer.mlp.down_proj.weight[:, 10:60].zero_()
    model, cut = make_student(teacher, StudentConfig(mlp_width=110), examples, silent)
    assert (cut.mlp_width, model.config.intermediate_size) == (110, 110)
    torch.testing.assert_close(logits(model, examples), logits(teacher.model, examples), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [StudentConfig(layers=6), StudentConfig(mlp_width=161)])
def test_a_student_is_no_larger_than_its_teacher(teacher: Network, examples, config):
    with pytest.raises(Invalid, match="a student is cut from its teacher, but student"):
        make_student(teacher, config, examples, silent)
