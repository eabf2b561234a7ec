"""Tiny random models with all their files, as Hugging Face folders and as GGUF: what tests run on.

    folder = write_tiny_folder(tmp_path, "qwen2", dtype="bf16", shards=3)
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf", "llama", quantization="q4_0")
    checkpoint = open_checkpoint(str(folder), cache_dir)

They need no torch. The same seed gives the same weights in either container (before rounding).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
THINK = ("<think>", "</think>")
MERGES = ("Ġ t", "h e", "i n", "Ġt he", "Ġ a", "o n", "r e", "e r", "Ġ Ġ", "a n", "Ġa n", "an d", "Ġan d")
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

Float32 = NDArray[np.float32]


def vocabulary() -> list[str]:
    """256 bytes, the merges, five special tokens, padded to 320 entries."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(merge.replace(" ", "") for merge in MERGES), *CONTROL, *THINK]
    return tokens + [f"[PAD{i}]" for i in range(len(tokens), 320)]


def tiny_config(architecture: str, **overrides: Any) -> dict[str, Any]:
    """A config.json of 3 layers, 6 heads over 2, hidden 96 (no multiple of 128)."""
    config = {
        "model_type": architecture,
        "architectures": [{"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[architecture] + "ForCausalLM"],
        "num_hidden_layers": 3,
        "hidden_size": 96,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 160,
        "vocab_size": 320,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "eos_token_id": vocabulary().index("<|im_end|>"),
        "bos_token_id": vocabulary().index("<|im_start|>"),
    }
    return {**config, **overrides}


def tiny_weights(config: dict[str, Any], seed: int = 0) -> dict[str, Float32]:
    """Random float32 weights under Hugging Face's names, scaled so that logits spread like a real model's."""
    random = np.random.default_rng(seed)
    hidden, head_dim = config["hidden_size"], config["head_dim"]
    heads, kv_heads, mlp = config["num_attention_heads"], config["num_key_value_heads"], config["intermediate_size"]

    def matrix(n: int, k: int) -> Float32:
        return (random.standard_normal((n, k)) / np.sqrt(k)).astype(np.float32)

    def vector(n: int, mean: float) -> Float32:
        return (mean + 0.2 * random.standard_normal(n)).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": matrix(config["vocab_size"], hidden) * 4,
        "model.norm.weight": vector(hidden, 1),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name, width in (("q", heads * head_dim), ("k", kv_heads * head_dim), ("v", kv_heads * head_dim)):
            weights[f"{at}.self_attn.{name}_proj.weight"] = matrix(width, hidden)
            if config["model_type"] == "qwen2":
                weights[f"{at}.self_attn.{name}_proj.bias"] = vector(width, 0)
            if config["model_type"] == "qwen3" and name != "v":
                weights[f"{at}.self_attn.{name}_norm.weight"] = vector(head_dim, 1)
        weights[f"{at}.self_attn.o_proj.weight"] = matrix(hidden, heads * head_dim)
        weights[f"{at}.mlp.gate_proj.weight"] = matrix(mlp, hidden)
        weights[f"{at}.mlp.up_proj.weight"] = matrix(mlp, hidden)
        weights[f"{at}.mlp.down_proj.weight"] = matrix(hidden, mlp)
        weights[f"{at}.input_layernorm.weight"] = vector(hidden, 1)
        weights[f"{at}.post_attention_layernorm.weight"] = vector(hidden, 1)
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(config["vocab_size"], hidden) * 3
    return weights


def tiny_tokenizer() -> tokenizers.Tokenizer:
    """A byte-level BPE over `vocabulary`, cut as Qwen2 cuts."""
    vocab = {token: i for i, token in enumerate(vocabulary())}
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in THINK])
    return tokenizer


def to_bf16(values: Float32) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path: Path, weights: dict[str, Float32], dtype: str = "f32") -> None:
    """One safetensors file by the format's own library, but bf16, which numpy has not, by hand."""
    if dtype != "bf16":
        kind = {"f32": np.float32, "f16": np.float16}[dtype]
        save_file({name: values.astype(kind) for name, values in weights.items()}, path, {"format": "pt"})
        return
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, values in weights.items():
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [at, at + 2 * values.size]}
        at += 2 * values.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(to_bf16(v).tobytes() for v in weights.values()))


def write_tiny_folder(
    folder: Path,
    architecture: str = "llama",
    *,
    dtype: str = "f32",
    shards: int = 1,
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """A whole Hugging Face folder: config, weights (sharded if asked), tokenizer, template, generation defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(architecture, **overrides)
    weights = tiny_weights(config, seed)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", weights, dtype)
    else:
        names = list(weights)
        weight_map = {}
        for i in range(shards):
            file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            part = {name: weights[name] for name in names[i::shards]}
            write_safetensors(folder / file, part, dtype)
            weight_map |= dict.fromkeys(part, file)
        total = sum(value.size for value in weights.values()) * (4 if dtype == "f32" else 2)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [config["eos_token_id"]], "temperature": 0.6, "top_p": 0.95, "do_sample": True})
    )
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|im_start|>",
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "chat_template": CHAT_TEMPLATE,
            }
        )
    )
    return folder


def tiny_adapter(
    config: dict[str, Any], seed: int = 0, *, rank: int = 4, targets: tuple[str, ...] = ADAPTED, size: float = 1.0
) -> dict[str, Float32]:
    """A and B of random LoRA matrices under PEFT's names; `size` 1 changes a model about as much as its weights do."""
    random = np.random.default_rng(1000 + seed)
    weights = tiny_weights({**config, "tie_word_embeddings": False})
    found = {}
    for name, values in weights.items():
        module = name.removesuffix(".weight")
        if values.ndim == 2 and module.rpartition(".")[2] in targets:
            n, k = values.shape
            at = f"base_model.model.{module}.lora"
            found[f"{at}_A.weight"] = (random.standard_normal((rank, k)) / np.sqrt(k)).astype(np.float32)
            found[f"{at}_B.weight"] = (size * random.standard_normal((n, rank)) / np.sqrt(rank)).astype(np.float32)
    return found


def write_tiny_adapter(
    folder: Path,
    architecture: str = "llama",
    *,
    seed: int = 0,
    dtype: str = "f32",
    rank: int = 4,
    targets: tuple[str, ...] = ADAPTED,
    size: float = 1.0,
    settings: dict[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """An adapter folder as PEFT writes it, for `write_tiny_folder` with the same overrides."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = tiny_adapter(tiny_config(architecture, **overrides), seed, rank=rank, targets=targets, size=size)
    write_safetensors(folder / "adapter_model.safetensors", weights, dtype)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "r": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": sorted(targets),
        "use_dora": False,
        "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps({**config, **(settings or {})}))
    return folder


def write_tiny_gguf(
    path: Path, architecture: str = "llama", *, quantization: str = "f32", seed: int = 0, **overrides: Any
) -> Path:
    """The same model as one GGUF file, matrices stored as `quantization` (`f32`, `f16`, `q8_0`, `q4_0`, `q4_1` …)."""
    config = tiny_config(architecture, **overrides)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    _add_tokenizer(writer)
    kind = gguf.GGMLQuantizationType[quantization.upper()]
    for name, values in tiny_weights(config, seed).items():
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            values = permuted(values, heads)
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
        else:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def permuted(values: Float32, heads: int) -> Float32:
    """Rows of q or k as converters to GGUF order them for llama: rotary pairs become neighbours."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def gguf_name(name: str) -> str:
    """GGUF's name of a Hugging Face tensor."""
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    base, _, suffix = name.rpartition(".")
    if base in top:
        return f"{top[base]}.{suffix}"
    _, _, layer, part = base.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{suffix}"


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    tokens = vocabulary()
    kinds = [
        gguf.TokenType.CONTROL
        if token in CONTROL
        else gguf.TokenType.USER_DEFINED
        if token in THINK
        else gguf.TokenType.UNUSED
        if token.startswith("[PAD")
        else gguf.TokenType.NORMAL
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
