# ruff: noqa: E501 - the table of kinds is one line per kind
"""The op list: how an architecture is written down, once, for every back-end.

A program is a flat list of ops over named activations and named tensors. `models/<arch>.py` emits
it, `fuse.py` rewrites it, `csrc/executor` runs it once per step and `reference.py` interprets it in
numpy and so defines it. An activation is a float32 matrix [rows, width]; a name may be written
again, which ends its former value. `rows` is the number of tokens in the step until `select_rows`,
and the number of rows that need logits after it.

The plain kinds (what an architecture may emit):

| kind         | args       | weights       | attrs                                          | out |
|--------------|------------|---------------|------------------------------------------------|-----|
| embed        |            | table [V, H]  |                                                | [rows, H] rows of the table at the step's token ids |
| rms_norm     | x          | w [S]         | eps                                            | x / rms(x) · w over each slice of S elements (S = width, or head_dim for per-head norms) |
| linear       | x          | w [N, K] …    |                                                | x · wᵀ, [rows, ΣN]: several weights are laid side by side |
| add_bias     | x          | b [N] …       |                                                | x + b (side by side likewise) |
| rope         | x          | inv_freq [D/2]| head_dim D, interleaved 0/1, scale             | rotate each head by position · inv_freq, times scale |
| kv_write     | k, v       |               | layer                                          | (none) store this step's keys and values in the paged cache |
| attention    | q          |               | layer, num_heads, num_kv_heads, head_dim, scale, window (0 = all) | causal attention over the cache, [rows, num_heads · head_dim] |
| silu_mul     | gate, up   |               |                                                | silu(gate) · up |
| add          | a, b       |               |                                                | a + b |
| select_rows  | x          |               |                                                | the step's logit rows of x |

A linear op may carry the attr `digits` (1 or 2): how many bytes its activations are rounded to
where its weights are quantized (`weights.linear_reference`); and `bf16_rows`: from how many rows on they are
multiplied in bf16 (`weights.linear_bf16_reference`), 0 for never. `arithmetic.set_arithmetic` sets both.
Adapters add to linear ops by the names of their weights, without changing the list (`lora.py`).

The last op writes the activation `logits`. Kinds made by fusing are listed in `fuse.py`. There an
argument may also name some columns of an activation, `qkv[0:576]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

PLAIN_KINDS: Final = frozenset(
    {"embed", "rms_norm", "linear", "add_bias", "rope", "kv_write", "attention", "silu_mul", "add", "select_rows"}
)
LOGITS: Final = "logits"


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. `out` is empty for ops that only write the cache."""

    kind: str
    out: str = ""
    args: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    attrs: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


Program = tuple[Op, ...]


def columns(arg: str) -> tuple[str, int, int | None]:
    """The parts of an argument: `"qkv[64:96]"` is ("qkv", 64, 96), `"x"` is ("x", 0, None)."""
    if not arg.endswith("]"):
        return arg, 0, None
    name, _, span = arg[:-1].partition("[")
    begin, _, end = span.partition(":")
    return name, int(begin), int(end)


def vocab_size(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Columns of the logits: the outputs of the matrices in the op that writes them."""
    head = next((op for op in reversed(program) if op.out == LOGITS), None)
    if head is None:
        raise ValueError(f"a program must write {LOGITS!r}; this one writes {sorted({op.out for op in program})}")
    matrices = [shapes[name][0] for name in head.weights if len(shapes[name]) == 2]
    return sum(matrices or [shapes[name][0] for name in head.weights])
