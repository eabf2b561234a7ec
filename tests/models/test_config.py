"""ModelConfig from config.json and from GGUF metadata: what is read, what is refused and how it is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from temper.errors import CheckpointError
from temper.models.config import config_from_gguf, config_from_hf
from tests.tiny_models import tiny_config

GGUF = {
    "general.architecture": "qwen2",
    "qwen2.block_count": 2,
    "qwen2.context_length": 512,
    "qwen2.embedding_length": 96,
    "qwen2.feed_forward_length": 160,
    "qwen2.attention.head_count": 6,
    "qwen2.attention.head_count_kv": 2,
    "qwen2.attention.layer_norm_rms_epsilon": 1e-6,
}


def from_gguf(**changes: Any) -> Any:
    raw = {**GGUF, **{key.replace("__", "."): value for key, value in changes.items()}}
    return config_from_gguf(raw, vocab_size=320, tied_embeddings=False)


def test_the_real_r1_header(r1_metadata: Mapping[str, Any]) -> None:
    config = config_from_gguf(r1_metadata, vocab_size=152064, tied_embeddings=False)
    assert (config.architecture, config.num_layers, config.hidden_size) == ("qwen2", 28, 3584)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (28, 4, 128)
    assert (config.context_length, config.rope_theta, config.rope_interleaved) == (131072, 10000.0, False)


def test_the_published_r1_config() -> None:
    raw = {
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
        "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02, "intermediate_size": 8960,
        "max_position_embeddings": 131072, "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 12,
        "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 10000,
        "sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
        "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936,
    }  # fmt: skip
    config = config_from_hf(raw)
    assert (config.head_dim, config.mlp_size, config.vocab_size) == (128, 8960, 151936)
    assert config.rope_scaling is None


def test_both_spellings_of_rope() -> None:
    old = tiny_config("llama", rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    new = tiny_config("llama", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})
    del new["rope_theta"]
    assert config_from_hf(old) == config_from_hf(new)
    assert config_from_hf(new).rope_theta == 5e5


def test_yarn_reaches_beyond_the_trained_context() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    assert config_from_hf(tiny_config("qwen2", rope_scaling=scaling)).context_length == 2048
    assert from_gguf(qwen2__rope__scaling__type="yarn", qwen2__rope__scaling__factor=4.0).context_length == 2048
    assert from_gguf(qwen2__rope__scaling__type="linear", qwen2__rope__scaling__factor=4.0).context_length == 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported"),
        ({"model_type": None}, "'model_type' must be a text"),
        ({"hidden_size": 0}, "'hidden_size' must be a whole number from 1 to"),
        ({"hidden_size": "96"}, "'hidden_size' must be a whole number"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' must be a whole number from 1 to 1024"),
        ({"vocab_size": True}, "'vocab_size' must be a whole number"),
        ({"num_key_value_heads": 4}, "multiple of the KV heads, got 6 and 4"),
        ({"head_dim": 15}, "head dimension must be even"),
        ({"rms_norm_eps": float("nan")}, "'rms_norm_eps' must be a finite number"),
        ({"rms_norm_eps": -1.0}, "'rms_norm_eps' must be a finite number"),
        ({"rope_theta": float("inf")}, "'rope_theta' must be a finite number"),
        ({"hidden_act": "gelu"}, "'hidden_act' must be 'silu' here, got 'gelu'"),
        ({"attention_bias": True}, "'attention_bias' must be False here"),
        ({"mlp_bias": True}, "'mlp_bias' must be False here"),
        ({"use_sliding_window": True}, "'use_sliding_window' must be False here"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "'rope_type' must be default, linear, llama3 or yarn",
        ),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "'factor' must be a finite number above 0"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "'low_freq_factor' must be a finite number"),
        ({"rope_scaling": "yarn"}, "'rope_scaling' must be an object"),
    ],
)
def test_what_config_json_may_not_say(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config_from_hf(tiny_config("llama") | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "bert"}, "'bert' is not supported"),
        ({"general__architecture": 5}, r"'general\.architecture' must be a text"),
        ({"qwen2__block_count": -1}, r"'qwen2\.block_count' must be a whole number"),
        ({"qwen2__block_count": (1, 2)}, r"'qwen2\.block_count' must be a whole number"),
        ({"qwen2__embedding_length": None}, r"'qwen2\.embedding_length' must be a whole number"),
        ({"qwen2__attention__key_length": 16, "qwen2__attention__value_length": 8}, "must be 16 here, got '8'"),
        ({"qwen2__rope__dimension_count": 8}, r"'qwen2\.rope\.dimension_count' must be 16 here"),
        ({"qwen2__expert_count": 8}, r"'qwen2\.expert_count' must be 0 here"),
        ({"qwen2__rope__scaling__type": "longrope"}, "must be none, linear or yarn"),
        ({"qwen2__rope__scaling__type": "yarn"}, r"'qwen2\.rope\.scaling\.factor' must be a finite number"),
    ],
)
def test_what_gguf_metadata_may_not_say(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_gguf(**changes)
