"""PEFT's folders become updates that give PEFT's own logits; what cannot be served is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.errors import CheckpointError, MalformedFile, NotFound, TemperError
from temper.kernels.config import ModelConfig
from temper.kernels.executor import ExecutorSpec, StepBatch
from temper.kernels.native import load_executor
from temper.kernels.reference import ReferenceExecutor
from temper.models.adapter import Adapter, adapter_version, read_adapter
from temper.models.architectures import ARCHITECTURES
from temper.models.chat_template import CHATML, ChatTemplate
from temper.models.checkpoint import Checkpoint, open_checkpoint
from tests.models.test_architectures import IDS
from tests.tiny_models import (
    tiny_adapter,
    tiny_config,
    tiny_weights,
    write_safetensors,
    write_tiny_adapter,
    write_tiny_folder,
    write_tiny_gguf,
)

COUNT = len(IDS)
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")


def read(folder: Path, checkpoint: Checkpoint, **limits: int) -> Adapter:
    return read_adapter(
        folder, checkpoint.config, checkpoint.template, **{"max_rank": 64, "max_bytes": 1 << 30, **limits}
    )


def logits(checkpoint: Checkpoint, adapter: Adapter, *, native: bool) -> np.ndarray:
    """Of one sequence with the adapter."""
    config, num_blocks = checkpoint.config, COUNT // 16 + 1
    spec = ExecutorSpec(config.num_layers, config.kv_width, num_blocks, 16, "f32", COUNT, COUNT)
    executor = (load_executor if native else ReferenceExecutor)(checkpoint.program(), checkpoint.tensors, spec)
    slot = executor.attach_adapter(executor.pack_adapter(adapter.updates))
    places = np.arange(COUNT, dtype=np.int32)
    one = np.array([COUNT], np.int32)
    starts, table = np.array([0, COUNT], np.int32), np.arange(num_blocks, dtype=np.int32)[None]
    ids = np.array(IDS, np.int32)
    executor.forward(StepBatch(ids, places, starts, one, table, places, np.array([slot], np.int32)))
    return executor.logits()


def peft_logits(base: Path, adapter: Path) -> np.ndarray:
    """By transformers, with the adapter beside its weights as PEFT has it, or merged by hand where PEFT is missing."""
    torch = pytest.importorskip("torch", reason="comparing with transformers needs the torch extra")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    try:
        from peft import PeftModel
    except ImportError:
        _merge(torch, model, adapter)
    else:
        model = PeftModel.from_pretrained(model, str(adapter))
    with torch.no_grad():
        return model.eval()(torch.tensor([IDS])).logits[0].numpy()


def _merge(torch: Any, model: Any, folder: Path) -> None:
    from safetensors.numpy import load_file

    config, found = (
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapter_model.safetensors"),
    )
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    if model.config.tie_word_embeddings and any("lm_head" in name for name in found):
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    for name, a in found.items():
        if name.endswith("lora_A.weight"):
            layer = model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            b = found[name.replace("lora_A", "lora_B")]
            layer.weight.data += torch.from_numpy(scale * (b.astype(np.float64) @ a)).float()


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_transformers_with_the_adapter(tmp_path: Path, name: str, tied: bool) -> None:
    base = write_tiny_folder(tmp_path / "base", name, tie_word_embeddings=tied)
    folder = write_tiny_adapter(tmp_path / "a", name, targets=ALL, settings={"use_rslora": tied})
    expected = peft_logits(base, folder)
    checkpoint = open_checkpoint(str(base), tmp_path)
    adapter = read(folder, checkpoint)
    for native in (False, True):
        np.testing.assert_allclose(logits(checkpoint, adapter, native=native), expected, rtol=1e-4, atol=4e-4)
    gguf = open_checkpoint(str(write_tiny_gguf(tmp_path / "m.gguf", name, tie_word_embeddings=tied)), tmp_path)
    if not tied:  # the GGUF writer here stores a head always
        permuted = read(folder, gguf)
        np.testing.assert_allclose(logits(gguf, permuted, native=True), expected, rtol=1e-4, atol=4e-4)
        assert (permuted.version != adapter.version) == (name == "llama")


def test_an_adapter_says_what_it_is(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(write_tiny_folder(tmp_path / "base")), tmp_path)
    one = read(write_tiny_adapter(tmp_path / "one", dtype="bf16", rank=3), checkpoint)
    assert (one.rank, one.base_model) == (3, "tiny")
    assert {update.a.format for update in one.updates.values()} == {"bf16"}
    assert len(one.updates) == 3 * 7
    assert one.num_bytes == 2 * sum(value.size for value in tiny_adapter(tiny_config("llama"), rank=3).values())
    update = one.updates["model.layers.0.self_attn.q_proj.weight"]
    assert update.scale == 2.0
    assert read(write_tiny_adapter(tmp_path / "two", dtype="bf16", rank=3), checkpoint).version == one.version
    for other in (
        write_tiny_adapter(tmp_path / "three", dtype="bf16", rank=3, seed=1),
        write_tiny_adapter(tmp_path / "four", dtype="bf16", rank=3, settings={"lora_alpha": 7}),
        write_tiny_adapter(tmp_path / "five", dtype="f16", rank=3),
    ):
        assert read(other, checkpoint).version != one.version


def test_patterns_give_modules_their_own_rank_and_alpha(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(write_tiny_folder(tmp_path / "base")), tmp_path)
    wide = tiny_adapter(tiny_config("llama"), rank=8, targets=("q_proj",))
    narrow = tiny_adapter(tiny_config("llama"), rank=2, targets=("v_proj",))
    patterns = {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"model.layers.1.self_attn.v_proj": 5}}
    folder = write_tiny_adapter(
        tmp_path / "a", rank=2, targets=("q_proj", "v_proj"), settings={**patterns, "lora_alpha": 4}
    )
    write_safetensors(folder / "adapter_model.safetensors", wide | narrow)
    updates = read(folder, checkpoint).updates
    assert updates["model.layers.0.self_attn.q_proj.weight"].rank == 8
    assert updates["model.layers.0.self_attn.q_proj.weight"].scale == 0.5
    assert updates["model.layers.0.self_attn.v_proj.weight"].scale == 2.0
    assert updates["model.layers.1.self_attn.v_proj.weight"].scale == 2.5


def test_what_refine_writes_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="refining needs the torch extra")
    transformers = pytest.importorskip("transformers")
    from temper.refine.lora.adapter import attach, layers, write_adapter
    from temper.refine.lora.recipe import LoraRecipe

    base = write_tiny_folder(tmp_path / "base", "qwen2")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    config = LoraRecipe(rank=4, targets=["q_proj", "down_proj"])
    attach(model, config, 0, torch.float32)
    torch.manual_seed(1)
    for _, layer in layers(model):
        layer.lora_B.data = torch.randn_like(layer.lora_B) * 0.3
    write_adapter(tmp_path / "made", model, config, str(base), [])
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    checkpoint = open_checkpoint(str(base), tmp_path)
    found = logits(checkpoint, read(tmp_path / "made", checkpoint), native=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=4e-4)


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, "peft_type"),
    "no method": ({"peft_type": None}, "peft_type"),
    "another task": ({"task_type": "SEQ_CLS"}, "task_type"),
    "biases": ({"bias": "all"}, "bias"),
    "DoRA": ({"use_dora": True}, "use_dora"),
    "saved modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
    "transposed": ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    "tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    "replicated layers": ({"layer_replication": [[0, 2]]}, "layer_replication"),
    "activated": ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
    "from the future": ({"use_something_new": True}, "use_something_new"),
    "a rank of nothing": ({"r": 0}, "'r'"),
    "a rank that is none": ({"r": "8"}, "'r'"),
    "another rank": ({"r": 5}, "lora_A"),
    "an endless alpha": ({"lora_alpha": float("inf")}, "lora_alpha"),
    "an alpha too large": ({"lora_alpha": 10**400}, "lora_alpha"),
    "a rank pattern that is one": ({"rank_pattern": {".*q_proj": 4}}, "rank_pattern"),
    "a rank pattern of nothing": ({"rank_pattern": {"q_proj": 0}}, "rank_pattern.q_proj"),
    "patterns that are no object": ({"alpha_pattern": [1]}, "alpha_pattern"),
    "targets of no kind": ({"target_modules": 7}, "target_modules"),
    "other targets": ({"target_modules": ["q_proj"]}, "target_modules"),
    "rslora that is none": ({"use_rslora": "yes"}, "use_rslora"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_are_not_served_are_refused_by_name(tmp_path: Path, name: str) -> None:
    changed, word = SETTINGS[name]
    checkpoint = open_checkpoint(str(write_tiny_folder(tmp_path / "base")), tmp_path)
    with pytest.raises(CheckpointError, match=word) as caught:
        read(write_tiny_adapter(tmp_path / "a", settings=changed), checkpoint)
    assert caught.value.hint


def _renamed(old: str, new: str) -> Any:
    return lambda w: {name.replace(old, new): value for name, value in w.items()}


def _first(side: str, change: Any) -> Any:
    def changed(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        name = next(name for name in weights if f"lora_{side}" in name)
        return {**weights, name: change(weights[name])}

    return changed


WEIGHTS: dict[str, tuple[Any, str]] = {
    "nothing": (lambda w: {"x": np.zeros(1, np.float32)}, "no LoRA matrix"),
    "a magnitude": (_renamed("lora_A.weight", "lora_magnitude_vector"), "DoRA"),
    "an embedding": (_renamed("q_proj.lora_A.weight", "embed_tokens.lora_embedding_A"), "embeddings"),
    "a disguised embedding": (_renamed("layers.0.self_attn.q_proj", "embed_tokens"), "no linear layer"),
    "unsaved names": (_renamed("lora_A.weight", "lora_A.default.weight"), "no LoRA matrix"),
    "no B": (lambda w: {name: v for name, v in w.items() if "lora_A" in name}, "no lora_B"),
    "another layer": (_renamed("layers.2", "layers.9"), "no linear layer"),
    "a norm": (_renamed("self_attn.q_proj", "input_layernorm"), "no linear layer"),
    "a wrong width": (_first("A", lambda a: a[:, :-1]), "lora_A"),
    "a wrong height": (_first("B", lambda b: b[:-1]), "lora_B"),
    "three dimensions": (_first("A", lambda a: a[None]), "lora_A"),
    "NaN": (_first("B", lambda b: b * np.float32("nan")), "not finite"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    change, word = WEIGHTS[name]
    checkpoint = open_checkpoint(str(write_tiny_folder(tmp_path / "base", tie_word_embeddings=True)), tmp_path)
    folder = write_tiny_adapter(tmp_path / "a")
    write_safetensors(folder / "adapter_model.safetensors", change(tiny_adapter(tiny_config("llama"))))
    with pytest.raises(CheckpointError, match=word) as caught:
        read(folder, checkpoint)
    assert caught.value.hint


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(write_tiny_folder(tmp_path / "base")), tmp_path)
    with pytest.raises(NotFound, match="no adapter folder"):
        read(tmp_path / "nowhere", checkpoint)
    folder = write_tiny_adapter(tmp_path / "a")
    with pytest.raises(CheckpointError, match="at most 3 are served"):
        read(folder, checkpoint, max_rank=3)
    with pytest.raises(CheckpointError, match="may take 100 bytes"):
        read(folder, checkpoint, max_bytes=100)
    with pytest.raises(CheckpointError, match="has no adapter_config"):
        read(tmp_path / "base", checkpoint)
    for text in ("", "[]", "{", "7", "[" * 100_000):
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(MalformedFile):
            read(folder, checkpoint)
    folder = write_tiny_adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickles"):
        read(folder, checkpoint)


KEYS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "bias", "use_rslora",
        "init_lora_weights", "peft_type", "other")  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelConfig, Path]:
    room = tmp_path_factory.mktemp("any")
    config = open_checkpoint(str(write_tiny_folder(room / "base", num_hidden_layers=1)), room).config
    return config, write_tiny_adapter(room / "a", num_hidden_layers=1)


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_config_is_read_or_refused(one_layer: tuple[ModelConfig, Path], key: str, value: Any) -> None:
    config, folder = one_layer
    path = folder / "adapter_config.json"
    good = path.read_text()
    path.write_text(json.dumps({**json.loads(good), key: value}))
    try:
        read_adapter(folder, config, ChatTemplate(CHATML, {}), max_rank=64, max_bytes=1 << 30)
    except TemperError as error:
        assert error.message
    finally:
        path.write_text(good)


def test_the_version_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    one, two = (write_tiny_adapter(tmp_path / name) for name in ("one", "two"))
    assert adapter_version(one) == adapter_version(two) != adapter_version(write_tiny_adapter(tmp_path / "3", seed=3))
    with pytest.raises(NotFound, match="adapter_config"):
        adapter_version(tmp_path)


def test_adapters_of_these_tests_change_the_model() -> None:
    config = tiny_config("llama")
    base, update = tiny_weights(config), tiny_adapter(config)
    name = "model.layers.0.mlp.up_proj"
    delta = update[f"base_model.model.{name}.lora_B.weight"] @ update[f"base_model.model.{name}.lora_A.weight"]
    assert 0.3 < np.std(delta) / np.std(base[f"{name}.weight"]) < 3
