"""ModelConfig from what checkpoints carry: Hugging Face's config.json, or GGUF metadata.

Whatever these files ask for and our op lists do not have is refused by name; nothing is ignored that
would change the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from temper.errors import CheckpointError
from temper.kernels.config import ModelConfig, RopeScaling
from temper.models.architectures import architecture

MAX_LAYERS: Final = 1024
MAX_WIDTH: Final = 1 << 20
MAX_HEADS: Final = 4096
MAX_HEAD_DIM: Final = 1024
MAX_VOCAB: Final = 1 << 24
MAX_CONTEXT: Final = 1 << 26


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """The config of a Hugging Face checkpoint (old and new spelling of the rope fields).

    Raises:
        CheckpointError: a field is missing, out of bounds, or asks for what no op list has.
    """
    fields = _Fields(raw, "config.json")
    name = fields.text("model_type")
    architecture(name)
    fields.refuse_unless("hidden_act", "silu")
    fields.refuse_unless("attention_bias", name == "qwen2" and raw.get("attention_bias", True))
    fields.refuse_unless("mlp_bias", False)
    fields.refuse_unless("use_sliding_window", False)
    heads = fields.size("num_attention_heads", MAX_HEADS)
    hidden = fields.size("hidden_size", MAX_WIDTH)
    rope = _hf_rope(fields)
    context = fields.size("max_position_embeddings", MAX_CONTEXT)
    scaling = _hf_scaling(rope, context)
    return _checked(ModelConfig(
        architecture=name,
        num_layers=fields.size("num_hidden_layers", MAX_LAYERS),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=fields.size("num_key_value_heads", MAX_HEADS, heads),
        head_dim=fields.size("head_dim", MAX_HEAD_DIM, 128 if name == "qwen3" else hidden // heads),
        mlp_size=fields.size("intermediate_size", MAX_WIDTH),
        vocab_size=fields.size("vocab_size", MAX_VOCAB),
        context_length=_stretched(context, scaling),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=rope.number("rope_theta", 1e4),
        rope_scaling=scaling,
        tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
    ))  # fmt: skip


def config_from_gguf(metadata: Mapping[str, Any], *, vocab_size: int, tied_embeddings: bool) -> ModelConfig:
    """The config of a GGUF file; `vocab_size` and `tied_embeddings` are facts of its tensors.

    Raises:
        CheckpointError: a field is missing, out of bounds, or asks for what no op list has.
    """
    name = _Fields(metadata, "GGUF metadata").text("general.architecture")
    module = architecture(name)
    fields = _Fields(metadata, "GGUF metadata", f"{name}.")
    heads = fields.size("attention.head_count", MAX_HEADS)
    hidden = fields.size("embedding_length", MAX_WIDTH)
    head_dim = fields.size("attention.key_length", MAX_HEAD_DIM, hidden // heads)
    fields.refuse_unless("attention.value_length", head_dim)
    fields.refuse_unless("rope.dimension_count", head_dim)
    fields.refuse_unless("expert_count", 0)
    context = fields.size("context_length", MAX_CONTEXT)
    scaling = _gguf_scaling(fields, context)
    return _checked(ModelConfig(
        architecture=name,
        num_layers=fields.size("block_count", MAX_LAYERS),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=fields.size("attention.head_count_kv", MAX_HEADS, heads),
        head_dim=head_dim,
        mlp_size=fields.size("feed_forward_length", MAX_WIDTH),
        vocab_size=vocab_size,
        context_length=_stretched(context, scaling),
        norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        rope_theta=fields.number("rope.freq_base", 1e4),
        rope_scaling=scaling,
        rope_interleaved=module.GGUF_ROPE_INTERLEAVED,
        tied_embeddings=tied_embeddings,
    ))  # fmt: skip


class _Fields:
    """Typed look-ups in a mapping that came from a file."""

    def __init__(self, raw: Mapping[str, Any], source: str, prefix: str = "") -> None:
        self.raw = raw
        self.source = source
        self.prefix = prefix

    def get(self, key: str) -> Any:
        return self.raw.get(self.prefix + key)

    def wrong(self, key: str, rule: str, value: object) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: '{self.prefix}{key}' must be {rule}, got {str(value)[:80]!r}",
            hint="the checkpoint is damaged, or of a kind that is not supported yet",
        )

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "a text", value)
        return value

    def size(self, key: str, limit: int, default: int | None = None) -> int:
        """A whole number from 1 to `limit`."""
        value = self.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
            raise self.wrong(key, f"a whole number from 1 to {limit}", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise self.wrong(key, "a finite number above 0", value)
        return float(value)

    def refuse_unless(self, key: str, only: object) -> None:
        """The field may be absent, null or `only`."""
        value = self.get(key)
        if value is not None and value != only:
            raise self.wrong(key, f"{only!r} here", value)


def _hf_rope(fields: _Fields) -> _Fields:
    """The rope fields: together under `rope_parameters`, or in two places as older configs have them."""
    for key in ("rope_parameters", "rope_scaling"):
        value = fields.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise fields.wrong(key, "an object", value)
    old = {**(fields.get("rope_scaling") or {}), "rope_theta": fields.get("rope_theta")}
    return _Fields(fields.get("rope_parameters") or old, "config.json (rope parameters)")


def _hf_scaling(fields: _Fields, context: int) -> RopeScaling | None:
    kind = fields.get("rope_type") or fields.get("type") or "default"
    fields.refuse_unless("partial_rotary_factor", 1.0)
    if kind == "default":
        return None
    if kind not in ("linear", "llama3", "yarn"):
        raise fields.wrong("rope_type", "default, linear, llama3 or yarn", kind)
    original = fields.size("original_max_position_embeddings", MAX_CONTEXT, context)
    factor = fields.number("factor", context / original)
    if kind == "linear":
        return RopeScaling("linear", factor, original)
    if kind == "llama3":
        low, high = fields.number("low_freq_factor"), fields.number("high_freq_factor")
        if not low < high:
            raise fields.wrong("high_freq_factor", f"above low_freq_factor ({low})", high)
        return RopeScaling("llama3", factor, original, low, high)
    for key in ("mscale", "mscale_all_dim"):
        fields.refuse_unless(key, 1.0)
    fields.refuse_unless("truncate", True)
    attention = None if fields.get("attention_factor") is None else fields.number("attention_factor")
    return RopeScaling(
        "yarn",
        factor,
        original,
        beta_fast=fields.number("beta_fast", 32.0),
        beta_slow=fields.number("beta_slow", 1.0),
        attention_factor=attention,
    )


def _gguf_scaling(fields: _Fields, context: int) -> RopeScaling | None:
    kind = fields.get("rope.scaling.type") or "none"
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise fields.wrong("rope.scaling.type", "none, linear or yarn", kind)
    original = fields.size("rope.scaling.original_context_length", MAX_CONTEXT, context)
    factor = fields.number("rope.scaling.factor")
    if kind == "linear":
        return RopeScaling("linear", factor, original)
    fields.refuse_unless("rope.scaling.attn_factor", 1.0)
    fields.refuse_unless("rope.scaling.yarn_log_multiplier", 0.1)
    return RopeScaling(
        "yarn",
        factor,
        original,
        beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0),
    )


def _stretched(context: int, scaling: RopeScaling | None) -> int:
    """YaRN configs often keep the trained context; what they reach is `factor` times that."""
    if scaling is None or scaling.kind != "yarn":
        return context
    return min(max(context, int(scaling.original_context * scaling.factor)), MAX_CONTEXT)


def _checked(config: ModelConfig) -> ModelConfig:
    """Rules that hold between fields."""
    if config.num_heads % config.num_kv_heads:
        raise CheckpointError(
            f"the number of heads must be a multiple of the KV heads, got {config.num_heads} and {config.num_kv_heads}",
            hint="the checkpoint's config is damaged",
        )
    if config.head_dim % 2:
        raise CheckpointError(
            f"the head dimension must be even for rotary positions, got {config.head_dim}",
            hint="the checkpoint's config is damaged",
        )
    return config
