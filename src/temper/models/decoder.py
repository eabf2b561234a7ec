"""What the decoder-only architectures share: the op list of a Llama-like layer, and its tensors.

An architecture file says what is its own (biases, norms of heads); this file writes it down.
It knows names and shapes, never numbers or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from temper.errors import CheckpointError
from temper.kernels.config import ModelConfig
from temper.kernels.ops import LOGITS, Op, Program
from temper.kernels.stored import StoredTensor
from temper.models.rope import INV_FREQ, attention_factor

EMBED = "model.embed_tokens.weight"
NORM = "model.norm.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Variant:
    """How an architecture differs from plain Llama."""

    qkv_bias: bool = False
    head_norm: bool = False
    """Queries and keys are normalised per head before they are rotated."""


def decoder_program(config: ModelConfig, variant: Variant) -> Program:
    """The op list of a whole decoder: embedding, layers, last norm, head."""
    ops = [Op("embed", "x", weights=(EMBED,))]
    for layer in range(config.num_layers):
        ops += _layer(config, variant, layer)
    ops += [
        Op("select_rows", "x", ("x",)),
        _norm("x", "x", NORM, config),
        Op("linear", LOGITS, ("x",), (head_name(config),)),
    ]
    return tuple(ops)


def tensor_shapes(config: ModelConfig, variant: Variant) -> dict[str, tuple[int, ...]]:
    """Every tensor that the program reads, with its row-major shape."""
    hidden, head_dim = config.hidden_size, config.head_dim
    widths = {"q": config.num_heads * head_dim, "k": config.kv_width, "v": config.kv_width}
    shapes: dict[str, tuple[int, ...]] = {
        EMBED: (config.vocab_size, hidden),
        NORM: (hidden,),
        head_name(config): (config.vocab_size, hidden),
        INV_FREQ: (head_dim // 2,),
    }
    for layer in range(config.num_layers):
        at = f"model.layers.{layer}"
        for name, width in widths.items():
            shapes[f"{at}.self_attn.{name}_proj.weight"] = (width, hidden)
            if variant.qkv_bias:
                shapes[f"{at}.self_attn.{name}_proj.bias"] = (width,)
            if variant.head_norm and name != "v":
                shapes[f"{at}.self_attn.{name}_norm.weight"] = (head_dim,)
        shapes[f"{at}.self_attn.o_proj.weight"] = (hidden, widths["q"])
        shapes[f"{at}.mlp.gate_proj.weight"] = (config.mlp_size, hidden)
        shapes[f"{at}.mlp.up_proj.weight"] = (config.mlp_size, hidden)
        shapes[f"{at}.mlp.down_proj.weight"] = (hidden, config.mlp_size)
        shapes[f"{at}.input_layernorm.weight"] = (hidden,)
        shapes[f"{at}.post_attention_layernorm.weight"] = (hidden,)
    return shapes


def head_name(config: ModelConfig) -> str:
    """The tensor that turns hidden states into logits."""
    return EMBED if config.tied_embeddings else HEAD


def check_tensors(tensors: Mapping[str, StoredTensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compare what a file holds with what the program reads.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or nothing reads it.
    """
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(
                f"tensor '{name}' {list(shape)} is missing",
                hint="the file is incomplete, or its config is another model's",
            )
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"tensor '{name}' must have shape {list(shape)} by the config, found {list(tensors[name].shape)}",
                hint="config and weights belong to different models",
            )
        if tensors[name].format.startswith("i"):
            raise CheckpointError(
                f"tensor '{name}' must hold numbers or quantized blocks, found bare integers ({tensors[name].format})",
                hint="its config.json does not say how they are packed",
            )
    if unread := sorted(set(tensors) - set(expected)):
        raise CheckpointError(
            f"nothing reads the tensor '{unread[0]}' ({len(unread)} such)",
            hint="the model has parts that this architecture does not: its answers would be wrong",
        )


def _layer(config: ModelConfig, variant: Variant, layer: int) -> Iterable[Op]:
    """One layer: x ← x + attention(norm(x)); x ← x + mlp(norm(x))."""
    at = f"model.layers.{layer}"
    yield _norm("h", "x", f"{at}.input_layernorm.weight", config)
    for name in ("q", "k", "v"):
        yield from _projection(config, variant, f"{at}.self_attn", name)
    yield Op("kv_write", "", ("k", "v"), attrs={"layer": layer})
    yield Op("attention", "a", ("q",), attrs={
        "layer": layer,
        "num_heads": config.num_heads,
        "num_kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "scale": config.head_dim**-0.5,
        "window": 0,
    })  # fmt: skip
    yield Op("linear", "o", ("a",), (f"{at}.self_attn.o_proj.weight",))
    yield Op("add", "x", ("x", "o"))
    yield _norm("h", "x", f"{at}.post_attention_layernorm.weight", config)
    yield Op("linear", "gate", ("h",), (f"{at}.mlp.gate_proj.weight",))
    yield Op("linear", "up", ("h",), (f"{at}.mlp.up_proj.weight",))
    yield Op("silu_mul", "m", ("gate", "up"))
    yield Op("linear", "d", ("m",), (f"{at}.mlp.down_proj.weight",))
    yield Op("add", "x", ("x", "d"))


def _projection(config: ModelConfig, variant: Variant, at: str, name: str) -> Iterator[Op]:
    """Queries, keys or values of the normed hidden state `h`, rotated where they must be."""
    yield Op("linear", name, ("h",), (f"{at}.{name}_proj.weight",))
    if variant.qkv_bias:
        yield Op("add_bias", name, (name,), (f"{at}.{name}_proj.bias",))
    if name == "v":
        return
    if variant.head_norm:
        yield _norm(name, name, f"{at}.{name}_norm.weight", config)
    yield Op("rope", name, (name,), (INV_FREQ,), {
        "head_dim": config.head_dim,
        "interleaved": int(config.rope_interleaved),
        "scale": attention_factor(config),
    })  # fmt: skip


def _norm(out: str, x: str, weight: str, config: ModelConfig) -> Op:
    return Op("rms_norm", out, (x,), (weight,), {"eps": config.norm_eps})
