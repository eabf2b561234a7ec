"""Where each activation lives: widths inferred, lifetimes found, few buffers shared.

A plan is a program whose names have become places: (buffer, first column, width). Two values share a
buffer when the earlier one is dead before the later one is written; a linear that adds a residual
writes onto the residual itself where nobody reads it any more. It knows no back-end.
"""

from __future__ import annotations

from dataclasses import dataclass

from temper.kernels.fuse import LINEAR_KINDS, Shapes, width_of
from temper.kernels.ops import LOGITS, Op, Program, columns


@dataclass(frozen=True, slots=True)
class Place:
    """Columns [column, column + width) of a buffer."""

    buffer: int
    column: int
    width: int


@dataclass(frozen=True, slots=True)
class PlannedOp:
    """An op with its places. `out` is None for ops that only write the cache."""

    op: Op
    out: Place | None
    args: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Ops in order, and the width of each buffer. The logits have a buffer of their own, the last."""

    ops: tuple[PlannedOp, ...]
    buffer_widths: tuple[int, ...]

    @property
    def logits_buffer(self) -> int:
        """Index of the buffer that holds the logits."""
        return len(self.buffer_widths) - 1


def plan(program: Program, shapes: Shapes) -> Plan:
    """Places for every value. Raises ValueError where an op reads what nobody wrote, or widths clash."""
    last_use = _last_uses(program)
    places: dict[str, Place] = {}
    live: dict[str, int] = {}
    widths: list[int] = []
    free: list[int] = []
    planned = []
    for at, op in enumerate(program):
        args = tuple(_resolve(arg, places, op) for arg in op.args)
        out = None
        if op.out:
            width = _out_width(op, args, shapes)
            dying = {name for name in live if last_use.get((name, live[name]), -1) <= at}
            inherited = _inherited(op, dying, places)
            if op.out == LOGITS:
                buffer = -1
            elif inherited is not None:
                buffer = places[inherited].buffer
                dying.discard(inherited)
                del live[inherited]
            else:
                buffer = _take(free, widths, width)
            for name in dying:
                free.append(places[name].buffer)
                del live[name]
            if op.out in live:  # written again while nobody reads the former value any more
                free.append(places[op.out].buffer)
            out = Place(buffer, 0, width)
            places[op.out] = out
            if buffer >= 0:
                live[op.out] = at
        planned.append(PlannedOp(op, out, args))
    if LOGITS not in places:
        raise ValueError(f"a program must write {LOGITS!r}")
    widths.append(places[LOGITS].width)
    logits = Place(len(widths) - 1, 0, widths[-1])
    done = tuple(PlannedOp(p.op, logits if p.out and p.out.buffer < 0 else p.out, p.args) for p in planned)
    return Plan(done, tuple(widths))


def _last_uses(program: Program) -> dict[tuple[str, int], int]:
    """(name, index of the op that wrote it) → index of the last op that reads that value."""
    written: dict[str, int] = {}
    uses: dict[tuple[str, int], int] = {}
    for at, op in enumerate(program):
        for arg in op.args:
            name = columns(arg)[0]
            if name in written:
                uses[name, written[name]] = at
        if op.out:
            written[op.out] = at
    return uses


def _resolve(arg: str, places: dict[str, Place], op: Op) -> Place:
    name, begin, end = columns(arg)
    if name not in places or name == LOGITS:
        raise ValueError(f"op {op.kind!r} reads {name!r}, which no op before it wrote")
    whole = places[name]
    stop = whole.width if end is None else end
    if not 0 <= begin < stop <= whole.width:
        raise ValueError(f"op {op.kind!r} reads columns {begin}:{stop} of {name!r}, which has {whole.width}")
    return Place(whole.buffer, whole.column + begin, stop - begin)


def _out_width(op: Op, args: tuple[Place, ...], shapes: Shapes) -> int:
    match op.kind:
        case "embed":
            return shapes[op.weights[0]][1]
        case "add_bias":
            width = sum(shapes[name][0] for name in op.weights)
            _require(args[0].width == width, op, f"bias of {width} on {args[0].width} columns")
            return width
        case kind if kind in LINEAR_KINDS:
            matrix = op.weights[1 if kind == "norm_linear" else 0]
            inputs, width = shapes[matrix][1], width_of(op, shapes)
            _require(args[0].width == inputs, op, f"{args[0].width} columns for a weight of {inputs} inputs")
            if op.attrs.get("add"):
                _require(args[-1].width == width, op, f"residual of {args[-1].width} on {width} columns")
            return width
        case "add" | "silu_mul":
            _require(args[0].width == args[1].width, op, f"{args[0].width} and {args[1].width} columns")
            return args[0].width
        case _:
            return args[0].width


def _inherited(op: Op, dying: set[str], places: dict[str, Place]) -> str | None:
    """The residual whose buffer the result may take over."""
    if op.kind not in LINEAR_KINDS or not op.attrs.get("add"):
        return None
    name, begin, end = columns(op.args[-1])
    whole = begin == 0 and end is None
    others = {columns(arg)[0] for arg in op.args[:-1]}
    if name in others:  # other threads may still read what this one would write
        return None
    return name if whole and name in dying else None


def _take(free: list[int], widths: list[int], width: int) -> int:
    """A free buffer of at least `width`, the narrowest; else the widest free one, widened; else a new one."""
    fitting = [buffer for buffer in free if widths[buffer] >= width]
    if fitting:
        buffer = min(fitting, key=lambda b: widths[b])
    elif free:
        buffer = max(free, key=lambda b: widths[b])
        widths[buffer] = width
    else:
        widths.append(width)
        return len(widths) - 1
    free.remove(buffer)
    return buffer


def _require(holds: bool, op: Op, what: str) -> None:
    if not holds:
        raise ValueError(f"op {op.kind!r} writing {op.out!r} has {what}")
