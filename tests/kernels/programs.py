"""Small programs over random tensors, for tests of executors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from temper.kernels.executor import ExecutorSpec, StepBatch
from temper.kernels.ops import Op, Program


@dataclass(frozen=True)
class Shape:
    layers: int = 2
    hidden: int = 48
    heads: int = 3
    kv_heads: int = 1
    head_dim: int = 16
    mlp: int = 80
    vocab: int = 101
    window: int = 0
    interleaved: bool = False
    bias: bool = False
    head_norm: bool = False


def program(s: Shape) -> Program:
    ops = [Op("embed", "x", (), ("embed",))]
    rope = {"head_dim": s.head_dim, "interleaved": float(s.interleaved), "scale": 1.0}
    for i in range(s.layers):
        p = f"l{i}."
        ops.append(Op("rms_norm", "h", ("x",), (p + "norm1",), {"eps": 1e-5}))
        for n in "qkv":
            ops.append(Op("linear", n, ("h",), (p + n,)))
            if s.bias:
                ops.append(Op("add_bias", n, (n,), (p + n + ".b",)))
        if s.head_norm:
            ops.append(Op("rms_norm", "q", ("q",), (p + "qnorm",), {"eps": 1e-6}))
            ops.append(Op("rms_norm", "k", ("k",), (p + "knorm",), {"eps": 1e-6}))
        ops.append(Op("rope", "q", ("q",), ("inv_freq",), rope))
        ops.append(Op("rope", "k", ("k",), ("inv_freq",), rope))
        ops.append(Op("kv_write", "", ("k", "v"), (), {"layer": i}))
        attrs = {
            "layer": i,
            "num_heads": s.heads,
            "num_kv_heads": s.kv_heads,
            "head_dim": s.head_dim,
            "scale": s.head_dim**-0.5,
            "window": s.window,
        }
        ops.append(Op("attention", "a", ("q",), (), attrs))
        ops.append(Op("linear", "o", ("a",), (p + "o",)))
        ops.append(Op("add", "x", ("x", "o")))
        ops.append(Op("rms_norm", "h", ("x",), (p + "norm2",), {"eps": 1e-5}))
        ops.append(Op("linear", "g", ("h",), (p + "gate",)))
        ops.append(Op("linear", "u", ("h",), (p + "up",)))
        ops.append(Op("silu_mul", "m", ("g", "u")))
        ops.append(Op("linear", "d", ("m",), (p + "down",)))
        ops.append(Op("add", "x", ("x", "d")))
    ops.append(Op("select_rows", "x", ("x",)))
    ops.append(Op("rms_norm", "h", ("x",), ("norm",), {"eps": 1e-5}))
    ops.append(Op("linear", "logits", ("h",), ("embed",)))
    return tuple(ops)


def tensors(s: Shape, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def matrix(n: int, k: int) -> np.ndarray:
        return (rng.standard_normal((n, k)) / np.sqrt(k)).astype(np.float32)

    def near_one(n: int) -> np.ndarray:
        return (1 + 0.1 * rng.standard_normal(n)).astype(np.float32)

    out = {
        "embed": matrix(s.vocab, s.hidden) * 4,
        "norm": near_one(s.hidden),
        "inv_freq": (10000.0 ** (-np.arange(0, s.head_dim, 2) / s.head_dim)).astype(np.float32),
    }
    widths = {"q": s.heads * s.head_dim, "k": s.kv_heads * s.head_dim, "v": s.kv_heads * s.head_dim}
    for i in range(s.layers):
        p = f"l{i}."
        out |= {p + "norm1": near_one(s.hidden), p + "norm2": near_one(s.hidden)}
        for n, width in widths.items():
            out |= {p + n: matrix(width, s.hidden), p + n + ".b": matrix(1, width)[0]}
        out |= {p + "qnorm": near_one(s.head_dim), p + "knorm": near_one(s.head_dim)}
        out |= {p + "o": matrix(s.hidden, widths["q"])}
        out |= {
            p + "gate": matrix(s.mlp, s.hidden),
            p + "up": matrix(s.mlp, s.hidden),
            p + "down": matrix(s.hidden, s.mlp),
        }
    return out


def spec(s: Shape, **changes: object) -> ExecutorSpec:
    fields: dict[str, object] = {
        "num_layers": s.layers,
        "kv_width": s.kv_heads * s.head_dim,
        "num_blocks": 64,
        "block_tokens": 16,
        "kv_dtype": "f32",
        "max_step_tokens": 512,
        "max_logit_rows": 512,
    }
    return ExecutorSpec(**(fields | changes))  # type: ignore[arg-type]


def batch(parts: list[tuple[list[int], int, list[int]]], all_rows: bool = True) -> StepBatch:
    """A step from (new tokens, tokens already in the cache, pages) of each sequence."""
    i32 = np.int32
    counts = [len(new) for new, _, _ in parts]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(i32)
    width = max(len(pages) for _, _, pages in parts)
    tables = np.array([pages + [-1] * (width - len(pages)) for _, _, pages in parts], i32)
    rows = np.arange(starts[-1]) if all_rows else starts[1:] - 1
    return StepBatch(
        tokens=np.concatenate([new for new, _, _ in parts]).astype(i32),
        positions=np.concatenate([np.arange(past, past + len(new)) for new, past, _ in parts]).astype(i32),
        q_starts=starts,
        context_lens=np.array([past + len(new) for new, past, _ in parts], i32),
        block_tables=tables,
        logit_rows=rows.astype(i32),
    )
