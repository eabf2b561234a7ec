"""What linear layers compute in, and how finely their activations are rounded.

int8: weights keep the grid that they are stored in; where they are quantized, activations are rounded to int8
per group of 32, or to int16, two digits of a byte each (`weights.linear_reference`). A second digit costs up to one
more product for many rows and next to nothing for one, where reading the weights is what takes the time.

bf16: quantized weights, and those stored in bf16, meet activations in bf16, both rounded to it, with sums in
float32 (`weights.linear_bf16_reference`). Where the CPU has tiles this is the faster one for more than a few
rows, and the nearer one to float32. Other float weights are multiplied in float32 with either.

mixed: up to four rows with activations in two digits, more in bf16. Both are near float32, but not to the bit: what a
row comes to then depends on how many there are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from temper.kernels.fuse import LINEAR_KINDS
from temper.kernels.ops import LOGITS, Program, columns

Arithmetic = Literal["auto", "int8", "bf16", "mixed"]
"""`auto`: int8 without tiles; with them mixed, or bf16 where nothing may depend on the number of rows."""

MIXED_ROWS: Final = 5
"""Rows from which on `mixed` multiplies in bf16: where its time falls below that of two digits."""

TwoDigits = Literal["none", "head", "head+qkv", "all"]
"""Which linear layers see activations in two digits: none, the one that writes the logits, that one and those that
write queries, keys and values, or all."""

_INTO_ATTENTION = frozenset({"attention", "kv_write", "rope_kv_write"})


def chosen(arithmetic: Arithmetic, isa: str, batch_invariant: bool) -> Literal["int8", "bf16", "mixed"]:
    """What `auto` comes to with the kernels of `isa`.

    Raises:
        ValueError: `mixed` where nothing may depend on the number of rows.
    """
    if arithmetic == "auto":
        return "int8" if isa != "amx" else "bf16" if batch_invariant else "mixed"
    if arithmetic == "mixed" and batch_invariant:
        raise ValueError("mixed arithmetic depends on the number of rows in a step; batch_invariant wants int8 or bf16")
    return arithmetic


def set_arithmetic(
    program: Program, arithmetic: Literal["int8", "bf16", "mixed"], two_digits: TwoDigits = "none"
) -> Program:
    """The program with the attrs `digits` and `bf16_rows` of its linear ops set.

    `digits`: 1 or 2 of int8 for each activation, as `two_digits` says, all in `mixed`. `bf16_rows`: the number of
    rows from which on quantized weights are multiplied in bf16, 0 for never.
    """
    rows = {"int8": 0, "bf16": 1, "mixed": MIXED_ROWS}[arithmetic]

    fine = set() if two_digits == "none" else {LOGITS}
    if two_digits == "head+qkv":
        fine |= _attended(program)
    everywhere = two_digits == "all" or arithmetic == "mixed"

    def digits(out: str) -> int:
        return 2 if everywhere or out in fine else 1

    return tuple(
        replace(op, attrs={**op.attrs, "digits": digits(op.out), "bf16_rows": rows}) if op.kind in LINEAR_KINDS else op
        for op in program
    )


def _attended(program: Program) -> set[str]:
    """What linear ops write and attention or the cache reads, maybe normed and rotated on the way."""
    made_by = {op.out: op for op in program if op.out}
    waiting = [columns(arg)[0] for op in program if op.kind in _INTO_ATTENTION for arg in op.args]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        op = made_by[name]
        if op.kind in LINEAR_KINDS:
            found.add(name)
        elif op.kind not in _INTO_ATTENTION:
            waiting += [columns(arg)[0] for arg in op.args]
    return found
