"""Transformers models from our checkpoints and from folders, and the forms their weights can take.

A folder is read by transformers itself, safetensors only and without running code from the folder. A
GGUF file is read by `temper.models`, widened exactly, and put into the model class of its architecture.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from temper.engines.torch.attention import NAME, register
from temper.errors import CheckpointError, MissingExtra, ProfileError
from temper.kernels.config import ModelConfig
from temper.kernels.weights import dequantize
from temper.models.checkpoint import Checkpoint
from temper.models.rope import INV_FREQ, attention_factor

_log = logging.getLogger(__name__)

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}

Quantize = Literal["none", "int8", "nf4"]


def model_from_folder(folder: Path, dtype: torch.dtype, attention: str = NAME) -> Any:
    """The causal language model in a folder, on the CPU, with our attention in it or another by its name.

    Raises:
        CheckpointError: transformers cannot read it, or its attention cannot be replaced.
    """
    register()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:
        # What transformers raises for a bad folder has no common base, and changes with its versions.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(
            f"transformers cannot load '{folder}': {reason}",
            hint="it must hold a causal language model of a known architecture in safetensors files",
        ) from error
    return _checked(model)


def model_from_checkpoint(checkpoint: Checkpoint, dtype: torch.dtype, attention: str = NAME) -> Any:
    """The model of an opened checkpoint with its weights widened to `dtype`, on the CPU; `attention` as above."""
    register()
    config = checkpoint.config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_hf_config(config), attn_implementation=attention, dtype=dtype)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        if name == INV_FREQ:
            continue
        values = dequantize(tensor).reshape(tensor.shape)
        if config.rope_interleaved and name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _halved(values, config.num_heads if "q_proj" in name else config.num_kv_heads)
        state[name] = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    missing = [name for name in missing if not (config.tied_embeddings and name == "lm_head.weight")]
    if missing or unexpected:
        raise CheckpointError(
            f"the file does not fit transformers' model: missing {missing[:3]}, unexpected {list(unexpected)[:3]}",
            hint="the file is damaged, or of another architecture than it says",
        )
    rotary = model.model.rotary_emb
    # The file's own frequencies: they carry whatever stretching it asks for.
    frequencies = torch.from_numpy(dequantize(checkpoint.tensors[INV_FREQ]).reshape(-1).copy())
    rotary.inv_freq = frequencies
    rotary.original_inv_freq = frequencies.clone()
    rotary.attention_scaling = attention_factor(config)
    return _checked(model)


def quantize_linears(model: Any, kind: Quantize) -> None:
    """Put the weights of all linear layers but the head into bitsandbytes' int8 or NF4; takes effect on `.to`.

    Raises:
        MissingExtra: bitsandbytes is not installed.
    """
    if kind == "none":
        return
    try:
        import bitsandbytes as bnb
    except ImportError as error:
        raise MissingExtra(
            f"compute.quantize = '{kind}' needs the package bitsandbytes",
            hint="pip install bitsandbytes, or leave quantize at 'none'",
        ) from error
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer) is not nn.Linear or layer is head:
            continue
        made: Any
        if kind == "int8":
            made = bnb.nn.Linear8bitLt(
                layer.in_features, layer.out_features, layer.bias is not None, has_fp16_weights=False, device="meta"
            )
            made.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
        else:
            made = bnb.nn.Linear4bit(
                layer.in_features,
                layer.out_features,
                layer.bias is not None,
                compute_dtype=layer.weight.dtype,
                quant_type="nf4",
                device="meta",
            )
            made.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
        made.bias = layer.bias
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, made)


def _checked(model: Any) -> Any:
    if not type(model)._supports_attention_backend:
        raise CheckpointError(
            f"the torch engine must replace the attention of a model, and {type(model).__name__} does not allow that",
            hint="serve it by another engine",
        )
    return model.eval()


def _hf_config(config: ModelConfig) -> Any:
    """Transformers' config of the same numbers; the rotary frequencies are set afterwards."""
    try:
        return AutoConfig.for_model(
            config.architecture,
            num_hidden_layers=config.num_layers,
            hidden_size=config.hidden_size,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.mlp_size,
            vocab_size=config.vocab_size,
            max_position_embeddings=config.context_length,
            rms_norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
            tie_word_embeddings=config.tied_embeddings,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
    except ValueError as error:
        raise ProfileError(
            f"the installed transformers knows no architecture '{config.architecture}'", hint="install a newer one"
        ) from error


def _halved(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of q or k from neighbouring rotary pairs to halves, as transformers has them."""
    pairs = values.reshape(heads, -1, 2, values.shape[-1])
    return pairs.swapaxes(1, 2).reshape(values.shape)
