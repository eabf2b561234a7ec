"""A checkpoint as one GGUF file, as llama.cpp and our own engines read it. Nothing is rounded.

Every tensor keeps its values: grids of 3 and 4 bits become Q4_0 or Q4_1, of 8 bits Q8_0, and what is stored as plain
numbers stays so. A model whose tokenizer, positions or weights GGUF has no exact words for is refused.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from temper.errors import Invalid
from temper.kernels.config import ModelConfig
from temper.kernels.stored import StoredTensor
from temper.kernels.weights import dequantize
from temper.models.architectures import architecture
from temper.models.checkpoint import Checkpoint
from temper.models.gguf_tokenizer import tokenizer_from_gguf
from temper.models.rope import INV_FREQ, inverse_frequencies
from temper.models.weights.gguf_names import FREQ_FACTORS, gguf_name
from temper.models.weights.gguf_writer import TYPES, Value, write_gguf
from temper.refine.formats.folder import check_free
from temper.refine.formats.gguf_vocabulary import vocabulary

_FILE_TYPES: Final = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "bf16": 32}
"""llama.cpp's number for the format that most weights have; it goes by the tensors themselves."""
_SAMPLE: Final = (
    "The 3 quick brown foxes can't jump over 12,345 lazy dogs.\n\n  x = {'a': [1, 2]}  # naïve 北京 \U0001f98a\n"
)
_SAMPLING: Final = {
    "temperature": "general.sampling.temp", "top_p": "general.sampling.top_p", "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p", "repetition_penalty": "general.sampling.penalty_repeat",
}  # fmt: skip


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> dict[str, int]:
    """Write `checkpoint` as the GGUF file `path`; returns how many tensors have each format.

    Raises:
        Invalid: something is at `path`, it does not end in .gguf, or the model has what GGUF has no words for.
    """
    if path.suffix != ".gguf":
        raise Invalid(f"a GGUF file is named *.gguf, but out is '{path.name}'", param="out", hint="add .gguf")
    check_free(path)
    metadata = _described(checkpoint) | _spoken(checkpoint)
    tensors = list(_tensors(checkpoint))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, metadata, tensors)
    formats = [tensor.format for tensor in tensors]
    return {name: formats.count(name) for name in dict.fromkeys(formats)}


def _described(checkpoint: Checkpoint) -> dict[str, Value]:
    """Sizes, positions, sampling, and what was done to the weights."""
    config = checkpoint.config
    name = config.architecture
    matrices = [tensor.format for tensor in checkpoint.tensors.values() if len(tensor.shape) > 1]
    steps = [{"recipe": step.recipe, "settings": dict(step.settings)} for step in checkpoint.manifest.steps]
    found: dict[str, Value] = {
        "general.architecture": name,
        "general.type": "model",
        "general.name": checkpoint.fetched.path.stem,
        "general.file_type": _FILE_TYPES.get(max(set(matrices), key=matrices.count), 0),
        "general.quantization_version": 2,
        f"{name}.block_count": config.num_layers,
        f"{name}.context_length": config.context_length,
        f"{name}.embedding_length": config.hidden_size,
        f"{name}.feed_forward_length": config.mlp_size,
        f"{name}.attention.head_count": config.num_heads,
        f"{name}.attention.head_count_kv": config.num_kv_heads,
        f"{name}.attention.key_length": config.head_dim,
        f"{name}.attention.value_length": config.head_dim,
        f"{name}.rope.dimension_count": config.head_dim,
        f"{name}.rope.freq_base": float(config.rope_theta),
        f"{name}.attention.layer_norm_rms_epsilon": float(config.norm_eps),
        f"{name}.vocab_size": config.vocab_size,
    }
    if steps:
        found["temper.steps"] = json.dumps(steps)
    for key, value in checkpoint.generation.items():
        if key in _SAMPLING:
            found[_SAMPLING[key]] = int(value) if key == "top_k" else float(value)
    return found | _stretching(config)


def _stretching(config: ModelConfig) -> dict[str, Value]:
    scaling, prefix = config.rope_scaling, f"{config.architecture}.rope.scaling"
    if scaling is None or scaling.kind == "llama3":  # that one is a tensor of factors
        return {}
    found: dict[str, Value] = {
        f"{prefix}.type": scaling.kind,
        f"{prefix}.factor": float(scaling.factor),
        f"{prefix}.original_context_length": scaling.original_context,
    }
    usual = scaling.attention_factor is None and (scaling.beta_fast, scaling.beta_slow) == (32.0, 1.0)
    if scaling.kind == "yarn" and not usual:
        raise Invalid("GGUF has words for YaRN with its usual factors alone, but this model sets its own",
                      param="model", hint="serve the folder")  # fmt: skip
    return found


def _spoken(checkpoint: Checkpoint) -> dict[str, Value]:
    """The tokenizer and the template, tried out."""
    tokenizer = checkpoint.tokenizer
    found = vocabulary(tokenizer)
    again = tokenizer_from_gguf(found, tokenizer.vocab_size)
    if again.encode(_SAMPLE) != tokenizer.encode(_SAMPLE):
        raise Invalid("a tokenizer must cut text the same way when GGUF describes it, but this one does not",
                      param="model", hint="serve the folder")  # fmt: skip
    return {**found, "tokenizer.chat_template": checkpoint.template.source}


def _tensors(checkpoint: Checkpoint) -> list[StoredTensor]:
    config = checkpoint.config
    found = []
    for name, tensor in checkpoint.tensors.items():
        if name == INV_FREQ:
            continue
        if tensor.format not in TYPES:
            raise Invalid(f"GGUF has no exact words for '{name}' in {tensor.format}", param="model",
                          hint="quantize to 3, 4 or 8 bits")  # fmt: skip
        ordered = _neighbours(name, tensor, config)
        found.append(StoredTensor(gguf_name(name), tensor.format, tensor.shape, ordered))
    factors = _factors(checkpoint)
    if factors is not None:
        found.append(StoredTensor(gguf_name(FREQ_FACTORS), "f32", factors.shape, factors.view(np.uint8)))
    return found


def _neighbours(name: str, tensor: StoredTensor, config: ModelConfig) -> Any:
    """The bytes of a tensor; rows of q and k reordered where GGUF keeps rotary pairs as neighbours."""
    part = next((part for part in ("q_proj", "k_proj") if f".{part}." in name), None)
    if part is None or config.rope_interleaved or not architecture(config.architecture).GGUF_ROPE_INTERLEAVED:
        return tensor.data
    heads = config.num_heads if part == "q_proj" else config.num_kv_heads
    rows = tensor.data.reshape(heads, 2, tensor.shape[0] // heads // 2, -1)
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1)


def _factors(checkpoint: Checkpoint) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """What divides the rotary frequencies, where no field says it."""
    config = checkpoint.config
    told = None if config.rope_scaling is None or config.rope_scaling.kind == "llama3" else config.rope_scaling
    plain = inverse_frequencies(replace(config, rope_scaling=told))
    wanted = dequantize(checkpoint.tensors[INV_FREQ]).reshape(-1)
    return None if np.array_equal(plain, wanted) else (plain / wanted).astype(np.float32)
