"""Checkpoints through the torch engine: folders and GGUF files give transformers' own logits; levers and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from temper.engines.kinds import Context, build
from temper.errors import CheckpointError, MissingExtra, ProfileError
from temper.profile.schema import BatchingConfig, KvConfig, Profile, TorchCompute, TorchEngine
from tests.tiny_models import write_tiny_folder, write_tiny_gguf

torch = pytest.importorskip("torch", reason="the extra 'torch' is not installed")
transformers = pytest.importorskip("transformers", reason="the extra 'torch' is not installed")

IDS = [257, 72, 101, 108, 108, 111, 44, 32, 119, 111, 114, 108, 100, 33]
SMALL = {"kv": KvConfig(dtype="f32", budget_bytes=8 << 20), "batching": BatchingConfig(max_sequences=4)}


def engine(source: Path, tmp_path: Path, **fields):
    section = TorchEngine(checkpoint=str(source), **{**SMALL, **fields})
    return build(Profile(engine=section), context=Context(cache_dir=tmp_path / "cache", home=tmp_path / "home"))


async def scores(source: Path, tmp_path: Path, **fields) -> np.ndarray:
    made = engine(source, tmp_path, **fields)
    await made.start()
    try:
        return (await made.score(IDS)).top_logprobs
    finally:
        await made.stop()


def expected(folder: Path) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([IDS])).logits[0], -1)[:-1].numpy()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
async def test_folders_and_files_hold_the_same_model(architecture: str, tmp_path: Path):
    folder = write_tiny_folder(tmp_path / "folder", architecture)
    file = write_tiny_gguf(tmp_path / "tiny.gguf", architecture)
    theirs = expected(folder)
    np.testing.assert_allclose(await scores(folder, tmp_path), theirs, atol=2e-4)
    np.testing.assert_allclose(await scores(file, tmp_path), theirs, atol=2e-4)


async def test_stretched_positions_of_a_folder(tmp_path: Path):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    folder = write_tiny_folder(tmp_path / "folder", "qwen2", rope_scaling=scaling)
    np.testing.assert_allclose(await scores(folder, tmp_path), expected(folder), atol=2e-4)


async def test_bf16_is_near(tmp_path: Path):
    folder = write_tiny_folder(tmp_path / "folder", "llama")
    theirs = expected(folder)
    ours = await scores(folder, tmp_path, compute=TorchCompute(dtype="bf16"))
    divergence = (np.exp(theirs) * (theirs - ours)).sum(-1).mean()
    assert 0 < divergence < 0.05


async def test_what_it_made_says_how(tmp_path: Path):
    made = engine(write_tiny_folder(tmp_path / "folder"), tmp_path, compute=TorchCompute(dtype="bf16", threads=1))
    await made.start()
    try:
        details = made.stats().details
        assert details["executor"] == "torch"
        assert details["device"] == "cpu"
        assert details["threads"] == 1
        assert made.capabilities().model == "folder"
    finally:
        await made.stop()


@pytest.mark.parametrize("kind", ["int8", "nf4"])
async def test_bitsandbytes_is_near_or_named(kind: str, tmp_path: Path):
    folder = write_tiny_folder(
        tmp_path / "folder", "llama", hidden_size=128, num_attention_heads=8, intermediate_size=192
    )
    try:
        ours = await scores(folder, tmp_path, compute=TorchCompute(quantize=kind))
    except MissingExtra as error:
        assert "bitsandbytes" in str(error)
        pytest.skip("bitsandbytes is not installed")
    theirs = expected(folder)
    assert (np.exp(theirs) * (theirs - ours)).sum(-1).mean() < {"int8": 0.1, "nf4": 1.0}[kind]


async def test_refusals(tmp_path: Path):
    folder = write_tiny_folder(tmp_path / "folder")
    with pytest.raises(ProfileError, match="batch_invariant"):
        engine(folder, tmp_path, batching=BatchingConfig(batch_invariant=True))
    if not torch.cuda.is_available():
        with pytest.raises(ProfileError, match="cuda"):
            await engine(folder, tmp_path, compute=TorchCompute(device="cuda")).start()
    (folder / "config.json").write_text('{"model_type": "no such thing"}')
    with pytest.raises(CheckpointError, match="transformers cannot load"):
        await engine(folder, tmp_path).start()
