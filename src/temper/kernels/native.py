"""The C++ executor behind the `Executor` protocol: packs weights, places buffers, checks what it is given.

It knows programs, tensors and specs. It knows no architecture, no profile and no request.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from temper.kernels import _native, sweeps
from temper.kernels.arithmetic import Arithmetic, TwoDigits, chosen, set_arithmetic
from temper.kernels.executor import ExecutorSpec, Float32, Int32, OpTime, SamplerParams, StepBatch, TokenLogprobs
from temper.kernels.fuse import LINEAR_KINDS, fuse, num_matrices
from temper.kernels.lora import LowRank, PackedAdapter, Updates, check_updates, linear_weights
from temper.kernels.ops import Op, Program
from temper.kernels.plan import Place, PlannedOp, plan
from temper.kernels.reference import as_float32
from temper.kernels.sampling_reference import check_params
from temper.kernels.stored import StoredTensor
from temper.kernels.weights import TARGETS, Precision, dequantize

Tensors = Mapping[str, StoredTensor | Float32]

_NOWHERE: Final = (-1, 0, 0)
_NONE: Final = np.empty(0, np.float32)


def available_isas() -> tuple[str, ...]:
    """Instruction sets with kernels that run on this machine, widest first."""
    return tuple(_native.kernel_sets())


def load_executor(
    program: Program,
    tensors: Tensors,
    spec: ExecutorSpec,
    *,
    isa: str = "auto",
    threads: int = 1,
    cpus: Sequence[int] = (),
    precision: Precision = "as-stored",
    arithmetic: Arithmetic = "auto",
    batch_invariant: bool = False,
    two_digits: TwoDigits = "none",
    sweeps_folder: Path | None = None,
) -> NativeExecutor:
    """A native executor of the fused program.

    Each tensor is packed once, in the grid of `precision`, then its file pages are given back to the
    system. `cpus`: where each thread stays, the one that steps first; none: wherever the system puts them.
    `arithmetic` says what linear layers compute in; in int8 `two_digits` names those whose activations are rounded
    less (`temper.kernels.arithmetic`). With `batch_invariant` no row depends on how many there are in a step.
    `sweeps_folder` remembers what was measured of this machine (`NativeExecutor.choose_sweeps`); without it, each
    instruction set goes its usual ways. Raises ValueError where the program, the tensors and the spec do not fit each
    other or the machine lacks `isa`.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    kinds = chosen(arithmetic, _isa(isa), batch_invariant)
    program = set_arithmetic(fuse(program, shapes), kinds, two_digits)
    executor = NativeExecutor(
        program, tensors, spec, isa=isa, threads=threads, cpus=cpus, precision=precision, arithmetic=kinds
    )
    if sweeps_folder is not None:
        executor.choose_sweeps(sweeps_folder)
    return executor


class NativeExecutor:
    """The `Executor` protocol in C++, for one program, plain or fused."""

    def __init__(
        self,
        program: Program,
        tensors: Tensors,
        spec: ExecutorSpec,
        *,
        isa: str = "auto",
        threads: int = 1,
        cpus: Sequence[int] = (),
        precision: Precision = "as-stored",
        arithmetic: Literal["int8", "bf16", "mixed"] = "int8",
    ) -> None:
        isa = _isa(isa)
        weights = _Weights(tensors, precision, in_tiles=arithmetic != "int8")
        self._program = program
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        planned = plan(program, self._shapes)
        head_dims = {op.attrs["layer"]: int(op.attrs["head_dim"]) for op in program if op.kind == "attention"}
        ops = [_spec_of(item, weights, head_dims) for item in planned.ops]
        self._quantized = {_label(item.op, weights): _any_quantized(item.op, weights) for item in planned.ops}
        self._native = _native.Executor(
            num_layers=spec.num_layers, kv_width=spec.kv_width, num_blocks=spec.num_blocks,
            block_tokens=spec.block_tokens, half=spec.kv_dtype == "f16", max_step_tokens=spec.max_step_tokens,
            max_logit_rows=spec.max_logit_rows, buffer_widths=list(planned.buffer_widths), ops=ops,
            isa=isa, threads=threads, cpus=list(cpus), weights=weights.packed,
        )  # fmt: skip
        self._weights = weights.packed
        self.vocab_size: int = self._native.vocab_size
        self.num_blocks = spec.num_blocks
        self.block_tokens = spec.block_tokens
        self.kv_block_bytes: int = self._native.kv_block_bytes
        self.isa: str = self._native.isa
        """The instruction set whose kernels run."""
        self.arithmetic = arithmetic
        """What quantized weights are multiplied in."""
        self.threads: int = self._native.threads
        """Threads that compute, the caller's included."""
        self.weight_bytes = sum(weight.num_bytes for weight in weights.packed.values())
        """Of packed weights."""
        self.sweeps: dict[str, sweeps.Rows] = {}
        """What was measured of the ways through a product, by weight format; see `sweeps`."""

    def choose_sweeps(self, folder: Path) -> None:
        """Take the ways through products that are the fastest here: as `folder` remembers them, else measured now."""
        quantized = [weight for weight in self._weights.values() if weight.quantized]
        self.sweeps = sweeps.fastest(quantized, self.isa, self.threads, folder)
        for like in quantized:
            self._native.set_sweeps(like, *self.sweeps[like.format])

    def forward(self, batch: StepBatch) -> None:
        """Run the program once; see `Executor`."""
        self._native.forward(
            _ids("tokens", batch.tokens),
            _ids("positions", batch.positions),
            _ids("q_starts", batch.q_starts),
            _ids("context_lens", batch.context_lens),
            _ids("block_tables", batch.block_tables, 2),
            _ids("logit_rows", batch.logit_rows),
            None if batch.adapters is None else _ids("adapters", batch.adapters),
        )

    def pack_adapter(self, updates: Updates) -> PackedAdapter:
        """An adapter's matrices packed, those of one op together; see `lora.TakesAdapters`."""
        check_updates(self._program, self._shapes, updates)
        parts = []
        for at, op in enumerate(self._program):
            found = [(m, updates[name]) for m, name in enumerate(linear_weights(op)) if name in updates]
            if found:
                parts.append(_AdapterPart(at, found))
        return NativeAdapter(parts)

    def attach_adapter(self, packed: PackedAdapter) -> int:
        """The lowest free slot; see `lora.TakesAdapters`."""
        assert isinstance(packed, NativeAdapter), "packed by pack_adapter"
        return self._native.attach_adapter([part.native for part in packed.parts], packed)

    def detach_adapter(self, slot: int) -> None:
        """Forget it."""
        self._native.detach_adapter(slot)

    def logits(self) -> Float32:
        """A copy of the last step's logits, float32 [R, V]."""
        return self._native.logits()

    def open_slot(self, params: SamplerParams, prompt: Int32) -> int:
        """A new sampler slot; see `Executor`. ValueError where a parameter or token is out of range."""
        check_params(params, self.vocab_size)
        return self._native.open_slot(
            _ids("prompt", prompt), seed=params.seed, sample_index=params.sample_index, top_p=params.top_p,
            top_k=params.top_k, min_p=params.min_p, repetition_penalty=params.repetition_penalty,
            presence_penalty=params.presence_penalty, frequency_penalty=params.frequency_penalty,
            no_repeat_ngram_size=params.no_repeat_ngram_size, min_tokens=params.min_tokens,
            logit_bias=list(params.logit_bias), stop_token_ids=list(params.stop_token_ids),
        )  # fmt: skip

    def close_slot(self, slot: int) -> None:
        """Free the slot."""
        self._native.close_slot(slot)

    def sample(self, rows: Int32, slots: Int32, temperatures: Float32, forced: Int32) -> Int32:
        """Choose one token per slot; see `Executor`."""
        if temperatures.dtype != np.float32 or temperatures.ndim != 1:
            raise ValueError(f"temperatures must be float32 [M]; got {temperatures.dtype} {temperatures.shape}")
        return self._native.sample(
            _ids("rows", rows), _ids("slots", slots), np.ascontiguousarray(temperatures), _ids("forced", forced)
        )

    def logprobs(self, rows: Int32, tokens: Int32, top_k: int) -> TokenLogprobs:
        """Raw log-probabilities of `tokens[i]` in logits row `rows[i]`; see `Executor`."""
        return TokenLogprobs(*self._native.logprobs(_ids("rows", rows), _ids("tokens", tokens), top_k))

    def set_timing(self, on: bool) -> None:
        """Measure each op of the steps to come, or stop. Costs some tens of nanoseconds per op."""
        self._native.set_timing(on)

    def op_times(self) -> list[OpTime]:
        """What each op that ran took, moved and computed since the last reset."""
        return [
            OpTime(label, phase, calls, ns, num_bytes, operations, self._most(label, operations, in_bf16))
            for label, phase, calls, ns, num_bytes, operations, in_bf16 in self._native.op_times()
        ]

    def _most(self, label: str, operations: int, in_bf16: int) -> Literal["int8", "bf16", "f32"]:
        """What most of an op's operations were done in."""
        if 2 * in_bf16 > operations:
            return "bf16"
        return "int8" if self._quantized[label] else "f32"

    def reset_op_times(self) -> None:
        """Forget what was measured."""
        self._native.reset_op_times()


class _AdapterPart:
    """What an adapter adds to one op: each A below the one before it in one matrix, each B by itself."""

    def __init__(self, op: int, updates: list[tuple[int, LowRank]]) -> None:
        shrink = _packed(_stacked([update.a for _, update in updates]))
        scales = np.concatenate([np.full(update.rank, update.scale, np.float32) for _, update in updates])
        expands, first = [], 0
        for matrix, update in updates:
            expands.append((matrix, _packed(update.b), first))
            first += update.rank
        self.native = _native.AdapterPart(op=op, shrink=shrink, scales=scales, expands=expands)
        self.weights = [shrink, *(weight for _, weight, _ in expands)]


class NativeAdapter:
    """An adapter packed for one program. Owns the matrices that the executor's parts point to."""

    def __init__(self, parts: list[_AdapterPart]) -> None:
        self.parts = parts

    @property
    def num_bytes(self) -> int:
        """Of the packed matrices, whose rows are padded to 16."""
        return sum(weight.num_bytes for part in self.parts for weight in part.weights)


def _stacked(tensors: list[StoredTensor]) -> StoredTensor:
    """[ΣN, K] from several [N, K]; as float32 where their formats differ."""
    shape = (sum(tensor.shape[0] for tensor in tensors), tensors[0].shape[1])
    if len({tensor.format for tensor in tensors}) == 1:
        return StoredTensor(tensors[0].name, tensors[0].format, shape, np.concatenate([t.data for t in tensors]))
    values = np.concatenate([dequantize(tensor) for tensor in tensors])
    return StoredTensor(tensors[0].name, "f32", shape, values.reshape(-1).view(np.uint8))


def _packed(tensor: StoredTensor) -> _native.PackedWeight:
    n, k = tensor.shape
    return _native.PackedWeight(tensor.format, np.ascontiguousarray(tensor.data), n, k)


class _Weights:
    """Tensors packed or widened as ops ask for them, each once however many ops share it."""

    def __init__(self, tensors: Tensors, precision: Precision, *, in_tiles: bool) -> None:
        self._tensors = tensors
        self._in_tiles = in_tiles
        self._precision: Precision = precision
        self.packed: dict[str, _native.PackedWeight] = {}
        # With the tensor itself, so that no other one comes to lie at its address.
        self._by_source: dict[tuple[Any, ...], tuple[_native.PackedWeight, StoredTensor]] = {}

    def matrix(self, name: str) -> _native.PackedWeight:
        if name not in self.packed:
            tensor = self._tensors[name]
            if len(tensor.shape) != 2:
                raise ValueError(f"{name} must be a matrix; its shape is {tensor.shape}")
            n, k = tensor.shape
            if not isinstance(tensor, StoredTensor):
                data = np.ascontiguousarray(tensor, np.float32).reshape(-1).view(np.uint8)
                tensor = StoredTensor(name, "f32", (n, k), data)
            # A tied head is the same bytes under another name.
            source = (tensor.format, n, k, tensor.data.ctypes.data)
            if source not in self._by_source:
                target = TARGETS.get(self._precision, tensor.format)
                data = np.ascontiguousarray(tensor.data)
                if target != tensor.format:  # as `weights.convert` defines it
                    data = _native.convert_weights(tensor.format, data, n, k, target)
                packed = _native.PackedWeight(target, data, n, k, self._in_tiles)
                self._by_source[source] = packed, tensor
                _release(tensor.data)
            self.packed[name] = self._by_source[source][0]
        return self.packed[name]

    def vector(self, names: tuple[str, ...]) -> Float32:
        return np.concatenate([as_float32(self._tensors[name]).reshape(-1) for name in names]) if names else _NONE


def _release(data: NDArray[np.uint8]) -> None:
    """Give the file pages behind `data` back: what they held has been packed, and they can be read again."""
    owner: Any = data
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if not isinstance(owner, mmap.mmap) or not hasattr(owner, "madvise"):
        return
    begin = data.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
    first = begin // mmap.PAGESIZE * mmap.PAGESIZE
    owner.madvise(mmap.MADV_DONTNEED, first, begin + data.size - first)


def _spec_of(item: PlannedOp, weights: _Weights, head_dims: Mapping[float, int]) -> _native.OpSpec:
    op, attrs = item.op, item.op.attrs
    kind, prologue, vector, bias = op.kind, "none", _NONE, _NONE
    matrices = [weights.matrix(name) for name in _matrix_names(op)]
    if op.kind in LINEAR_KINDS:
        kind = "linear"
        prologue = {"norm_linear": "norm", "silu_linear": "silu"}.get(op.kind, "none")
        first = 1 if op.kind == "norm_linear" else 0
        vector = weights.vector(op.weights[:first])
        bias = weights.vector(op.weights[first + num_matrices(op) :])
    elif op.kind == "embed":
        vector = _NONE
    elif op.kind == "add_bias":
        bias = weights.vector(op.weights)
    else:
        vector = weights.vector(op.weights)
    layer = attrs.get("layer", 0)
    head_dim = head_dims.get(layer, 0) if op.kind == "kv_write" else int(attrs.get("head_dim", 0))
    return _native.OpSpec(
        kind=kind, label=_label(op, weights), out=_place(item.out), args=[_place(arg) for arg in item.args],
        matrices=matrices, vector=vector, bias=bias, prologue=prologue, add_residual=bool(attrs.get("add", 0)),
        digits=int(attrs.get("digits", 1)), bf16_rows=int(attrs.get("bf16_rows", 0)),
        eps=float(attrs.get("eps", 0)), scale=float(attrs.get("scale", 1)), layer=int(layer),
        num_heads=int(attrs.get("num_heads", 0)), num_kv_heads=int(attrs.get("num_kv_heads", 0)),
        head_dim=head_dim, window=int(attrs.get("window", 0)), interleaved=bool(attrs.get("interleaved", 0)),
    )  # fmt: skip


def _label(op: Op, weights: _Weights) -> str:
    """The kind; for matrices also their shape and names without layers: `norm_linear 960x576 q_proj+k_proj+v_proj`."""
    names = _matrix_names(op)
    if not names:
        return op.kind
    matrices = [weights.matrix(name) for name in names]
    short = dict.fromkeys(name.removesuffix(".weight").rpartition(".")[2] for name in names)
    return f"{op.kind} {sum(m.n for m in matrices)}x{matrices[0].k} {'+'.join(short)}"


def _any_quantized(op: Op, weights: _Weights) -> bool:
    return any(weights.matrix(name).quantized for name in _matrix_names(op))


def _isa(name: str) -> str:
    """The instruction set of that name, the widest for auto. ValueError where this machine lacks it."""
    isas = available_isas()
    if name != "auto" and name not in isas:
        raise ValueError(f"isa must be one of {', '.join(isas)} on this machine, or auto; got {name!r}")
    return isas[0] if name == "auto" else name


def _matrix_names(op: Op) -> tuple[str, ...]:
    if op.kind == "embed":
        return op.weights[:1]
    return linear_weights(op)


def _place(place: Place | None) -> tuple[int, int, int]:
    return _NOWHERE if place is None else (place.buffer, place.column, place.width)


def _ids(name: str, array: Int32, rank: int = 1) -> Int32:
    if array.dtype != np.int32 or array.ndim != rank:
        raise ValueError(f"{name} must be int32 with {rank} dimension(s); got {array.dtype} {array.shape}")
    return np.ascontiguousarray(array)
