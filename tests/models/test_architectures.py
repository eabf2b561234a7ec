"""Every architecture's op list, read by the numpy reference, gives transformers' logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from temper.errors import CheckpointError
from temper.models.architectures import ARCHITECTURES, architecture
from temper.models.checkpoint import Checkpoint, open_checkpoint
from tests.models.reference_forward import reference_logits
from tests.tiny_models import write_tiny_folder, write_tiny_gguf

IDS = [3, 17, 255, 40, 41, 9, 200, 7, 7, 7, 301, 64, 90, 12, 0, 31, 150, 77, 33, 5]


def transformers_logits(folder: Path, ids: list[int]) -> np.ndarray:
    torch = pytest.importorskip("torch", reason="comparing with transformers needs the torch extra")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def assert_same_logits(checkpoint: Checkpoint, folder: Path, ids: list[int] = IDS) -> None:
    expected, found = transformers_logits(folder, ids), reference_logits(checkpoint, ids)
    assert expected.std() > 0.5  # or everything would be close to everything
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_transformers(tmp_path: Path, name: str, tied: bool) -> None:
    folder = write_tiny_folder(tmp_path / name, name, tie_word_embeddings=tied)
    assert_same_logits(open_checkpoint(str(folder), tmp_path), folder)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_half_precision_and_shards(tmp_path: Path, dtype: str) -> None:
    folder = write_tiny_folder(tmp_path / "m", "llama", dtype=dtype, shards=3)
    checkpoint = open_checkpoint(str(folder), tmp_path)
    assert {t.format for t in checkpoint.tensors.values() if len(t.shape) == 2} == {dtype}
    assert_same_logits(checkpoint, folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gguf_gives_the_same_logits(tmp_path: Path, name: str) -> None:
    folder = write_tiny_folder(tmp_path / name, name)
    checkpoint = open_checkpoint(str(write_tiny_gguf(tmp_path / "m.gguf", name)), tmp_path)
    assert checkpoint.config.rope_interleaved == (name == "llama")
    assert_same_logits(checkpoint, folder)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "attention_factor": 1.5,
        },
    ],
    ids=["linear", "llama3", "yarn", "yarn-all"],
)
def test_rope_scaling(tmp_path: Path, scaling: dict[str, Any]) -> None:
    folder = write_tiny_folder(tmp_path / "m", "llama", rope_scaling=scaling)
    checkpoint = open_checkpoint(str(folder), tmp_path)
    assert checkpoint.config.rope_scaling is not None
    assert_same_logits(checkpoint, folder, IDS * 5)


def test_odd_groups_and_wide_heads(tmp_path: Path) -> None:
    shape = {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 32}
    folder = write_tiny_folder(tmp_path / "m", "qwen3", **shape)
    assert_same_logits(open_checkpoint(str(folder), tmp_path), folder)


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"'mamba' is not supported; supported are llama, qwen2, qwen3"):
        architecture("mamba")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_program_reads_exactly_its_tensors(tmp_path: Path, name: str) -> None:
    checkpoint = open_checkpoint(str(write_tiny_folder(tmp_path / name, name)), tmp_path)
    read = {weight for op in checkpoint.program() for weight in op.weights}
    assert read == set(checkpoint.tensors)
    assert checkpoint.program()[-1].out == "logits"
