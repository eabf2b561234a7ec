"""Tensor names: from GGUF's to Hugging Face's, the one naming that op lists use, and back."""

from __future__ import annotations

import re
from typing import Final

FREQ_FACTORS: Final = "rope.freq_factors"
"""Per-frequency divisors that a GGUF file may carry instead of a scaling rule."""

_TOP: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "rope_freqs.weight": FREQ_FACTORS,
}
_BLOCK: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER: Final = re.compile(r"blk\.(\d{1,5})\.([a-z_]+)\.(weight|bias)")


def hf_name(name: str) -> str:
    """The Hugging Face name of a GGUF tensor; a name without a counterpart comes back as it is."""
    if name in _TOP:
        return _TOP[name]
    match = _LAYER.fullmatch(name)
    if match and match[2] in _BLOCK:
        return f"model.layers.{int(match[1])}.{_BLOCK[match[2]]}.{match[3]}"
    return name


_TOP_BACK: Final = {ours: theirs for theirs, ours in _TOP.items()}
_BLOCK_BACK: Final = {ours: theirs for theirs, ours in _BLOCK.items()}
_OUR_LAYER: Final = re.compile(r"model\.layers\.(\d{1,5})\.([a-z_.]+)\.(weight|bias)")


def gguf_name(name: str) -> str:
    """The GGUF name of a Hugging Face tensor.

    Raises:
        KeyError: GGUF has no name for it.
    """
    if name in _TOP_BACK:
        return _TOP_BACK[name]
    match = _OUR_LAYER.fullmatch(name)
    if match is None:
        raise KeyError(name)
    return f"blk.{int(match[1])}.{_BLOCK_BACK[match[2]]}.{match[3]}"
