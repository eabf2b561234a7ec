from __future__ import annotations

import pytest

from temper.kernels.native import load_executor
from temper.measure.trace import stages
from tests.kernels.programs import Shape, program, spec, tensors


def op(label: str, phase: str, ms: float, num_bytes: int = 0, operations: int = 0, arithmetic: str = "int8") -> dict:
    return {
        "label": label, "phase": phase, "calls": 1, "ns": int(ms * 1e6), "bytes": num_bytes, "operations": operations,
        "arithmetic": arithmetic,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("label", "phase", "stage"),
    [
        ("norm_linear 960x576 q_proj+k_proj+v_proj", "decode", stages.PROJECTIONS),
        ("fused_linear 576x576 o_proj", "mixed", stages.PROJECTIONS),
        ("norm_linear 3072x576 gate_proj+up_proj", "decode", stages.MLP),
        ("silu_linear 576x1536 down_proj", "prefill", stages.MLP),
        ("norm_linear 49152x576 embed_tokens", "decode", stages.HEAD),
        ("linear 49152x576 lm_head", "decode", stages.HEAD),
        ("linear 10x20 router", "decode", stages.OTHER_LINEAR),
        ("attention", "prefill", stages.ATTENTION_PREFILL),
        ("attention", "decode", stages.ATTENTION_DECODE),
        ("rope_kv_write", "mixed", stages.OTHER_OPS),
        ("embed 49152x576 embed_tokens", "prefill", stages.OTHER_OPS),
    ],
)
def test_ops_have_their_stage(label, phase, stage):
    assert stages.stage_of(label, phase) == stage


def test_every_second_is_in_one_stage():
    trace = {
        "parts": {
            "tokenize": (2, 0.01), "schedule": (4, 0.02), "build": (4, 0.03), "forward": (4, 1.0), "sample": (4, 0.05),
            "publish": (4, 0.08), "detokenize": (9, 0.03), "hand_over": (4, 0.01),
        },
        "ops": [
            op("attention", "prefill", 100), op("attention", "decode", 50, 10, 20, "f32"),
            op("linear 4x4 up_proj", "decode", 500, 1000, 400), op("linear 4x4 up_proj", "mixed", 200, 500, 600),
            op("add", "decode", 50),
        ],
    }  # fmt: skip
    found = {stage.name: stage for stage in stages.stages(trace, http_cpu_s=0.2, loop_cpu_s=0.1)}
    assert list(found) == [name for name in stages.ORDER if name in found]
    assert found[stages.CALLING].seconds == pytest.approx(0.1)
    assert found[stages.PUBLISHING].seconds == pytest.approx(0.05)
    assert found[stages.MLP].seconds == pytest.approx(0.7)
    assert found[stages.MLP].phase_seconds == pytest.approx({"decode": 0.5, "mixed": 0.2})
    assert (found[stages.MLP].bytes, found[stages.MLP].int8_operations) == (1500, 1000)
    assert found[stages.ATTENTION_DECODE].f32_operations == 20
    assert sum(stage.seconds for stage in found.values()) == pytest.approx(1.5)
    by_phase = {one.name: one for one in stages.phases(trace["ops"])}
    assert by_phase["decode"].seconds == pytest.approx(0.6)
    assert by_phase["decode"].bytes == 1010
    assert set(by_phase) == {"prefill", "decode", "mixed"}


def test_what_is_not_told_is_not_there():
    assert stages.stages(None, None, None) == []
    assert [stage.name for stage in stages.stages(None, 0.5, None)] == [stages.HTTP]


def test_every_stage_is_defined():
    assert set(stages.DEFINITIONS) == set(stages.ORDER)


def test_labels_are_those_of_the_executor():
    """A program's own labels are understood: names of the tensors, without layers."""
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj", "gate": "gate_proj"}
    shape = Shape(layers=1)
    renamed = {old: f"model.layers.0.{new}.weight" for old, new in ((f"l0.{o}", n) for o, n in names.items())}
    ops = tuple(
        type(one)(one.kind, one.out, one.args, tuple(renamed.get(name, name) for name in one.weights), one.attrs)
        for one in program(shape)
    )
    values = {renamed.get(name, name): value for name, value in tensors(shape).items()}
    executor = load_executor(ops, values, spec(shape))
    assert {label for label in executor._quantized if "proj" in label} == {
        "norm_linear 80x48 q_proj+k_proj+v_proj", "fused_linear 48x48 o_proj", "norm_linear 160x48 gate_proj+up",
    }  # fmt: skip
