# ruff: noqa: E501 - the table of kinds is one line per kind
"""Fewer, larger ops: passes over the op list that change its cost and not its meaning.

At one token per step a small model is bound by what each op costs beyond its arithmetic, so ops that
follow each other on the same data become one. A pass sees names and shapes only; it knows no
architecture. The kinds it makes (all weights in the order given, `[...]` where the attr says so):

| kind          | args               | weights                                  | attrs | out |
|---------------|--------------------|------------------------------------------|-------|-----|
| fused_linear  | x [, residual]     | matrices … [, biases …]                  | matrices, bias 0/1, add 0/1 | [residual +] x · wᵀ [+ b] |
| norm_linear   | x [, residual]     | norm weight, matrices … [, biases …]     | eps and these | the same of rms_norm(x) |
| silu_linear   | gate, up [, resid.]| matrices … [, biases …]                  | these | the same of silu(gate) · up |
| rope_kv_write | q, k, v            | inv_freq                                 | of rope, and layer | rotated q; rotated k and v go to the cache |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from temper.kernels.ops import LOGITS, Op, Program, columns

LINEAR_KINDS: Final = frozenset({"linear", "fused_linear", "norm_linear", "silu_linear"})

Shapes = Mapping[str, tuple[int, ...]]


def fuse(program: Program, shapes: Shapes) -> Program:
    """The same program in fewer ops. `shapes` are those of its tensors."""
    ops = _single_assignment(program)
    ops = _fold_bias(ops)
    ops = _merge_siblings(ops, shapes)
    ops = _fuse_rope_and_cache(ops)
    ops = _fold_silu(ops)
    ops = _fold_norm(ops, shapes)
    ops = _fold_residual(ops)
    return tuple(ops)


def num_matrices(op: Op) -> int:
    """How many of a linear op's weights are matrices; they come first, after a norm's weight."""
    return int(op.attrs.get("matrices", len(op.weights)))


def width_of(op: Op, shapes: Shapes) -> int:
    """Columns that a linear op writes."""
    first = 1 if op.kind == "norm_linear" else 0
    return sum(shapes[name][0] for name in op.weights[first : first + num_matrices(op)])


# -- the passes ------------------------------------------------------------------------------------


def _single_assignment(program: Program) -> list[Op]:
    """Every value under a name of its own, so that a name means one value."""
    latest: dict[str, str] = {}
    versions: Counter[str] = Counter()
    ops = []
    for op in program:
        args = tuple(_renamed(arg, latest) for arg in op.args)
        out = op.out
        if out and out != LOGITS:
            out = f"{op.out}.{versions[op.out]}"
            versions[op.out] += 1
            latest[op.out] = out
        ops.append(replace(op, args=args, out=out))
    return ops


def _fold_bias(ops: list[Op]) -> list[Op]:
    """linear, add_bias → fused_linear."""
    uses = _uses(ops)
    out: list[Op] = []
    for op in ops:
        at = _producer(out, op.args[0]) if op.kind == "add_bias" else None
        if at is None or out[at].kind != "linear" or uses[out[at].out] != 1:
            out.append(op)
            continue
        linear = out[at]
        attrs = {"matrices": len(linear.weights), "bias": 1, "add": 0}
        out[at] = Op("fused_linear", op.out, linear.args, linear.weights + op.weights, attrs)
    return out


def _merge_siblings(ops: list[Op], shapes: Shapes) -> list[Op]:
    """Linears that read the same value → one, whose columns their readers then name."""
    families: dict[tuple[str, str], list[Op]] = {}
    for op in ops:
        if op.kind in ("linear", "fused_linear") and op.out != LOGITS:
            families.setdefault((op.args[0], op.kind), []).append(op)
    slices: dict[str, str] = {}
    merged: dict[str, Op] = {}
    dropped: set[str] = set()
    for (arg, kind), members in families.items():
        if len(members) == 1:
            continue
        name, begin = "+".join(op.out for op in members), 0
        for op in members:
            slices[op.out] = f"{name}[{begin}:{begin + width_of(op, shapes)}]"
            begin += width_of(op, shapes)
        matrices = tuple(w for op in members for w in op.weights[: num_matrices(op)])
        biases = tuple(w for op in members for w in op.weights[num_matrices(op) :])
        attrs = {"matrices": len(matrices), "bias": float(bool(biases)), "add": 0}
        merged[members[0].out] = Op(kind, name, (arg,), matrices + biases, attrs)
        dropped |= {op.out for op in members[1:]}
    out = []
    for op in ops:
        if op.out and op.out in dropped:
            continue
        op = merged.get(op.out, op)
        out.append(replace(op, args=tuple(slices.get(arg, arg) for arg in op.args)))
    return out


def _fuse_rope_and_cache(ops: list[Op]) -> list[Op]:
    """rope of q, rope of k, kv_write → rope_kv_write."""
    uses = _uses(ops)
    dropped: set[int] = set()
    replaced: dict[int, Op] = {}
    for at, op in enumerate(ops):
        if op.kind != "kv_write":
            continue
        layer = op.attrs["layer"]
        of_k = _producer(ops, op.args[0])
        reader = next((o for o in ops[at:] if o.kind == "attention" and o.attrs["layer"] == layer), None)
        of_q = _producer(ops, reader.args[0]) if reader else None
        if of_k is None or of_q is None or not _same_rope(ops[of_q], ops[of_k]):
            continue
        if of_q > at or uses[ops[of_q].out] != 1 or uses[ops[of_k].out] != 1:
            continue
        q, k = ops[of_q], ops[of_k]
        args = (q.args[0], k.args[0], op.args[1])
        replaced[at] = Op("rope_kv_write", q.out, args, q.weights, {**q.attrs, "layer": layer})
        dropped |= {of_q, of_k}
    return [replaced.get(at, op) for at, op in enumerate(ops) if at not in dropped]


def _fold_silu(ops: list[Op]) -> list[Op]:
    """silu_mul, linear → silu_linear."""
    return _fold_into_linear(ops, "silu_mul", "silu_linear", lambda op: True)


def _fold_norm(ops: list[Op], shapes: Shapes) -> list[Op]:
    """rms_norm of whole rows, linear → norm_linear."""

    def whole_rows(op: Op) -> bool:
        reader = next(o for o in ops if op.out in o.args)
        first = reader.weights[0]
        return reader.kind in LINEAR_KINDS and shapes[op.weights[0]][0] == shapes[first][1]

    return _fold_into_linear(ops, "rms_norm", "norm_linear", whole_rows)


def _fold_residual(ops: list[Op]) -> list[Op]:
    """linear, add → the linear adds."""
    uses = _uses(ops)
    out: list[Op] = []
    for op in ops:
        folded = False
        for mine, other in ((0, 1), (1, 0)) if op.kind == "add" else ():
            at = _producer(out, op.args[mine])
            if at is None or out[at].kind not in LINEAR_KINDS or out[at].attrs.get("add"):
                continue
            linear, rest = out[at], _producer(out, op.args[other])
            if uses[linear.out] != 1 or rest is None or rest >= at:
                continue
            kind = "fused_linear" if linear.kind == "linear" else linear.kind
            attrs = {"matrices": num_matrices(linear), "bias": 0, **linear.attrs, "add": 1}
            out[at] = Op(kind, op.out, (*linear.args, op.args[other]), linear.weights, attrs)
            folded = True
            break
        if not folded:
            out.append(op)
    return out


# -- what the passes share -------------------------------------------------------------------------


def _fold_into_linear(ops: list[Op], source: str, fused: str, fits: Callable[[Op], bool]) -> list[Op]:
    uses = _uses(ops)
    out: list[Op] = []
    for op in ops:
        at = _producer(out, op.args[0]) if op.kind in ("linear", "fused_linear") else None
        if at is None or out[at].kind != source or uses[out[at].out] != 1 or not fits(out[at]):
            out.append(op)
            continue
        before = out.pop(at)
        attrs = {"matrices": num_matrices(op), "bias": 0, "add": 0, **op.attrs, **before.attrs}
        out.append(Op(fused, op.out, before.args + op.args[1:], before.weights + op.weights, attrs))
    return out


def _uses(ops: list[Op]) -> Counter[str]:
    return Counter(columns(arg)[0] for op in ops for arg in op.args)


def _producer(ops: list[Op], arg: str) -> int | None:
    """Index of the op whose whole output `arg` is; None for columns of one."""
    return next((i for i, op in enumerate(ops) if op.out == arg), None)


def _renamed(arg: str, latest: Mapping[str, str]) -> str:
    name = columns(arg)[0]
    return latest.get(name, name) + arg[len(name) :]


def _same_rope(a: Op, b: Op) -> bool:
    return a.kind == b.kind == "rope" and a.weights == b.weights and dict(a.attrs) == dict(b.attrs)
