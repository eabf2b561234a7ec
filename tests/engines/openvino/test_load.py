"""What an openvino section is refused for, and how its cache is sized: no OpenVINO needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from temper.engines.kinds import Context, build
from temper.engines.openvino import load
from temper.errors import CheckpointError, MissingExtra, ProfileError
from temper.kernels.config import ModelConfig
from temper.profile.schema import BatchingConfig, OpenVINOEngine, OpenVINOKv, Profile, SamplingConfig, TorchEngine
from tests.tiny_models import write_tiny_folder

CONFIG = ModelConfig("llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e-5, 1e5)


def make(section, tmp_path: Path):
    return build(Profile(engine=section), context=Context(cache_dir=tmp_path, home=tmp_path))


@pytest.mark.parametrize("section", [OpenVINOEngine(), TorchEngine()])
def test_a_missing_extra_is_named(section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from temper.engines.torch import load as torch_load

    for module in (load, torch_load):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=section.kind) as caught:
        make(section, tmp_path)
    assert f"temper-llm[{section.kind}]" in str(caught.value)


def test_what_genai_cannot_do_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(load, "find_spec", lambda name: object())
    for fields in (
        {"batching": BatchingConfig(batch_invariant=True)},
        {"sampling": SamplingConfig(no_repeat_ngram_size=3)},
    ):
        with pytest.raises(ProfileError, match="openvino engine has no"):
            make(OpenVINOEngine(**fields), tmp_path)


async def test_a_folder_without_an_ir_is_refused(tmp_path: Path):
    pytest.importorskip("openvino_genai", reason="the extra 'openvino' is not installed")
    folder = write_tiny_folder(tmp_path / "folder")
    with pytest.raises(CheckpointError, match=r"openvino_model\.xml"):
        await make(OpenVINOEngine(checkpoint=str(folder)), tmp_path).start()


def test_the_pool_is_what_the_budget_holds():
    # 30 layers, keys and values, 3 heads of 64, 32 tokens.
    sizes = {"f32": 30 * 2 * 3 * 64 * 4 * 32, "f16": 30 * 2 * 3 * 64 * 2 * 32, "u8": 30 * 2 * 3 * (64 + 8) * 32}
    for dtype, size in sizes.items():
        section = OpenVINOEngine(kv=OpenVINOKv(dtype=dtype, budget_bytes=10 * size + 1))
        assert load._block_bytes(section, CONFIG, 32) == size
        assert load._num_blocks(section, 8192, size, 32) == 10
    with pytest.raises(ProfileError, match="one KV block"):
        load._num_blocks(OpenVINOEngine(kv=OpenVINOKv(budget_bytes=1 << 20)), 8192, 2 << 20, 32)


def test_a_context_beyond_the_model_is_refused():
    assert load._context(OpenVINOEngine(), CONFIG) == 8192
    with pytest.raises(ProfileError, match="8192"):
        load._context(OpenVINOEngine(batching=BatchingConfig(context_length=8193)), CONFIG)
