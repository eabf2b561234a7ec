"""The op list interpreted in plain numpy: the definition of every op, and an executor made of it.

Slow and readable. Each row of a linear layer and each query of attention is computed by itself, so
nothing depends on the other rows of a step. It knows nothing of architectures, requests or threads.
The kinds that `fuse.py` makes are defined here as what they are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from temper.kernels.executor import ExecutorSpec, Float32, Int32, SamplerParams, StepBatch, TokenLogprobs
from temper.kernels.lora import PackedAdapter, Updates, check_updates, linear_weights, low_rank
from temper.kernels.ops import LOGITS, Op, Program, columns, vocab_size
from temper.kernels.sampling_reference import Slot, check_params, choose, token_logprobs
from temper.kernels.stored import StoredTensor

# -- the ops ---------------------------------------------------------------------------------------


def rms_norm(x: Float32, w: Float32, eps: float) -> Float32:
    """x / sqrt(mean(x²) + eps) · w over each slice of `len(w)` elements of x [rows, width]."""
    slices = x.reshape(-1, w.shape[0])
    mean = np.mean(slices * slices, axis=1, keepdims=True, dtype=np.float32)
    normed: Float32 = (slices / np.sqrt(mean + np.float32(eps)) * w).astype(np.float32)
    return normed.reshape(x.shape)


def linear(x: Float32, weights: list[Float32]) -> Float32:
    """x [rows, K] times each weight [N, K] transposed, side by side: [rows, ΣN]."""
    out = np.empty((x.shape[0], sum(w.shape[0] for w in weights)), np.float32)
    for i, row in enumerate(x):
        np.concatenate([w @ row for w in weights], out=out[i])
    return out


def rope(x: Float32, positions: Int32, inv_freq: Float32, head_dim: int, interleaved: bool, scale: float) -> Float32:
    """Rotate each head of x [rows, heads · head_dim] by position · inv_freq, times scale.

    Pairs are (i, i + head_dim/2), or (2i, 2i + 1) where `interleaved`.
    """
    angle = positions[:, None].astype(np.float32) * inv_freq  # float32, as Hugging Face has it
    cos = (np.cos(angle.astype(np.float64)) * scale).astype(np.float32)[:, None, :]
    sin = (np.sin(angle.astype(np.float64)) * scale).astype(np.float32)[:, None, :]
    heads = x.reshape(x.shape[0], -1, head_dim)
    out = np.empty_like(heads)
    half = head_dim // 2
    first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, half), slice(half, None))
    a, b = heads[..., first], heads[..., second]
    out[..., first] = a * cos - b * sin
    out[..., second] = b * cos + a * sin
    return out.reshape(x.shape)


def attention(
    query: Float32, keys: Float32, values: Float32, num_heads: int, num_kv_heads: int, scale: float
) -> Float32:
    """One query [heads · D] over keys and values [context, kv heads · D]: softmax(q·k · scale) · v."""
    context = keys.shape[0]
    q = query.reshape(num_kv_heads, num_heads // num_kv_heads, -1)
    k = keys.reshape(context, num_kv_heads, -1)
    v = values.reshape(context, num_kv_heads, -1)
    scores = np.einsum("hgd,chd->hgc", q, k) * np.float32(scale)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: Float32 = np.einsum("hgc,chd->hgd", weights, v).astype(np.float32)
    return mixed.reshape(-1)


def silu_mul(gate: Float32, up: Float32) -> Float32:
    """gate / (1 + e^-gate) · up, elementwise."""
    with np.errstate(over="ignore"):
        return (gate / (np.float32(1.0) + np.exp(-gate)) * up).astype(np.float32)


# -- one step --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReferenceAdapter:
    """An adapter in float32: weight name → (A, B, scale)."""

    updates: Mapping[str, tuple[Float32, Float32, float]]

    @property
    def num_bytes(self) -> int:
        """Of all its matrices."""
        return sum(a.nbytes + b.nbytes for a, b, _ in self.updates.values())


@dataclass(slots=True)
class _Step:
    """What the ops of one `forward` see."""

    batch: StepBatch
    tensors: Mapping[str, Float32]
    keys: NDArray[np.floating]
    values: NDArray[np.floating]
    """[layers, blocks, block tokens, kv width] both, written by `kv_write`."""
    adapters: Mapping[int, ReferenceAdapter] = field(default_factory=dict)
    """By slot."""
    active: dict[str, Float32] = field(default_factory=dict)
    row_slots: Int32 | None = None
    """The adapter's slot of each row, -1 for none; None: no row has one."""

    def __post_init__(self) -> None:
        if self.batch.adapters is not None:
            self.row_slots = np.repeat(self.batch.adapters, np.diff(self.batch.q_starts))

    def products(self, op: Op, x: Float32) -> Float32:
        """x times the op's matrices, and what the adapters of its rows add."""
        names = linear_weights(op)
        out = linear(x, [self.tensors[name] for name in names])
        for row, slot in enumerate([] if self.row_slots is None else self.row_slots.tolist()):
            column = 0
            for name in names:
                n = self.tensors[name].shape[0]
                if slot >= 0 and (update := self.adapters[slot].updates.get(name)):
                    a, b, scale = update
                    out[row, column : column + n] += low_rank(x[row : row + 1], a, b, scale)[0]
                column += n
        return out

    def arg(self, op: Op, index: int) -> Float32:
        name, begin, end = columns(op.args[index])
        return self.active[name][:, begin:end]

    def weights(self, op: Op) -> list[Float32]:
        return [self.tensors[name] for name in op.weights]

    def sequences(self) -> list[tuple[int, int, Int32]]:
        """First and last + 1 row of each sequence, with its block table."""
        starts = self.batch.q_starts
        return [(int(starts[i]), int(starts[i + 1]), self.batch.block_tables[i]) for i in range(len(starts) - 1)]


def _embed(step: _Step, op: Op) -> Float32:
    return step.weights(op)[0][step.batch.tokens]


def _rms_norm(step: _Step, op: Op) -> Float32:
    return rms_norm(step.arg(op, 0), step.weights(op)[0], op.attrs["eps"])


def _linear(step: _Step, op: Op) -> Float32:
    return step.products(op, step.arg(op, 0))


def _add_bias(step: _Step, op: Op) -> Float32:
    return step.arg(op, 0) + np.concatenate(step.weights(op))


def _rope(step: _Step, op: Op) -> Float32:
    attrs = op.attrs
    return rope(
        step.arg(op, 0),
        step.batch.positions,
        step.weights(op)[0],
        int(attrs["head_dim"]),
        bool(attrs.get("interleaved", 0)),
        attrs.get("scale", 1.0),
    )


def _kv_write(step: _Step, op: Op) -> None:
    _write_cache(step, int(op.attrs["layer"]), step.arg(op, 0), step.arg(op, 1))


def _write_cache(step: _Step, layer: int, keys: Float32, values: Float32) -> None:
    block_tokens = step.keys.shape[2]
    for begin, end, table in step.sequences():
        positions = step.batch.positions[begin:end]
        blocks, places = table[positions // block_tokens], positions % block_tokens
        step.keys[layer, blocks, places] = keys[begin:end]
        step.values[layer, blocks, places] = values[begin:end]


def _attention(step: _Step, op: Op) -> Float32:
    attrs = op.attrs
    layer, window = int(attrs["layer"]), int(attrs.get("window", 0))
    query = step.arg(op, 0)
    out = np.empty_like(query)
    for begin, end, table in step.sequences():
        pages = table[table >= 0]
        width = step.keys.shape[-1]
        keys = step.keys[layer, pages].reshape(-1, width).astype(np.float32)
        values = step.values[layer, pages].reshape(-1, width).astype(np.float32)
        for row in range(begin, end):
            last = int(step.batch.positions[row]) + 1
            first = max(0, last - window) if window else 0
            out[row] = attention(
                query[row],
                keys[first:last],
                values[first:last],
                int(attrs["num_heads"]),
                int(attrs["num_kv_heads"]),
                attrs["scale"],
            )
    return out


def _silu_mul(step: _Step, op: Op) -> Float32:
    return silu_mul(step.arg(op, 0), step.arg(op, 1))


def _add(step: _Step, op: Op) -> Float32:
    return step.arg(op, 0) + step.arg(op, 1)


def _select_rows(step: _Step, op: Op) -> Float32:
    if step.row_slots is not None:
        step.row_slots = step.row_slots[step.batch.logit_rows]
    return step.arg(op, 0)[step.batch.logit_rows]


def _fused_linear(step: _Step, op: Op, x: Float32, weights: list[Float32]) -> Float32:
    out = step.products(op, x)
    if op.attrs["bias"]:
        out = out + np.concatenate(weights[int(op.attrs["matrices"]) :])
    if op.attrs["add"]:
        out = step.arg(op, -1) + out
    return out


def _plus_linear(step: _Step, op: Op) -> Float32:
    return _fused_linear(step, op, step.arg(op, 0), step.weights(op))


def _norm_linear(step: _Step, op: Op) -> Float32:
    norm, *rest = step.weights(op)
    return _fused_linear(step, op, rms_norm(step.arg(op, 0), norm, op.attrs["eps"]), rest)


def _silu_linear(step: _Step, op: Op) -> Float32:
    return _fused_linear(step, op, silu_mul(step.arg(op, 0), step.arg(op, 1)), step.weights(op))


def _rope_kv_write(step: _Step, op: Op) -> Float32:
    k = _rope(step, replace(op, args=op.args[1:2]))
    _write_cache(step, int(op.attrs["layer"]), k, step.arg(op, 2))
    return _rope(step, op)


KINDS: dict[str, Callable[[_Step, Op], Float32 | None]] = {
    "embed": _embed,
    "rms_norm": _rms_norm,
    "linear": _linear,
    "add_bias": _add_bias,
    "rope": _rope,
    "kv_write": _kv_write,
    "attention": _attention,
    "silu_mul": _silu_mul,
    "add": _add,
    "select_rows": _select_rows,
    "fused_linear": _plus_linear,
    "norm_linear": _norm_linear,
    "silu_linear": _silu_linear,
    "rope_kv_write": _rope_kv_write,
}


# -- the executor ----------------------------------------------------------------------------------


def check_batch(batch: StepBatch, spec: ExecutorSpec, num_embeddings: int, slots: Container[int] = ()) -> None:
    """Raise ValueError, naming the field, where a batch breaks the rules of `StepBatch`.

    `slots` are those of attached adapters.
    """
    num_tokens, num_sequences = len(batch.tokens), len(batch.context_lens)

    def rule(holds: bool, message: str) -> None:
        if not holds:
            raise ValueError(message)

    for name in ("tokens", "positions", "q_starts", "context_lens", "block_tables", "logit_rows"):
        array = getattr(batch, name)
        rank = 2 if name == "block_tables" else 1
        rule(
            array.dtype == np.int32 and array.ndim == rank,
            f"{name} must be int32 with {rank} dimension(s); got {array.dtype} {array.shape}",
        )
    rule(1 <= num_tokens <= spec.max_step_tokens, f"a step takes 1 to {spec.max_step_tokens} tokens; got {num_tokens}")
    rule(len(batch.positions) == num_tokens, f"positions must have {num_tokens} entries; got {len(batch.positions)}")
    rule(len(batch.q_starts) == num_sequences + 1, f"q_starts must have {num_sequences + 1} entries")
    rule(
        batch.q_starts[0] == 0 and batch.q_starts[-1] == num_tokens and bool(np.all(np.diff(batch.q_starts) > 0)),
        f"q_starts must ascend from 0 to {num_tokens}; got {batch.q_starts.tolist()}",
    )
    rule(batch.block_tables.shape[0] == num_sequences, f"block_tables must have {num_sequences} rows")
    rule(
        bool(np.all((batch.tokens >= 0) & (batch.tokens < num_embeddings))),
        f"token ids must be in [0, {num_embeddings}); got {batch.tokens.min()} to {batch.tokens.max()}",
    )
    rule(
        len(batch.logit_rows) <= spec.max_logit_rows,
        f"a step leaves at most {spec.max_logit_rows} logit rows; got {len(batch.logit_rows)}",
    )
    rule(
        bool(
            np.all((batch.logit_rows >= 0) & (batch.logit_rows < num_tokens)) and np.all(np.diff(batch.logit_rows) > 0)
        ),
        f"logit_rows must ascend within [0, {num_tokens}); got {batch.logit_rows.tolist()}",
    )
    for i in range(num_sequences):
        begin, end, context = int(batch.q_starts[i]), int(batch.q_starts[i + 1]), int(batch.context_lens[i])
        rule(
            context >= end - begin
            and np.array_equal(batch.positions[begin:end], np.arange(context - (end - begin), context)),
            f"positions of sequence {i} must run up to its context length {context} - 1",
        )
        pages = -(-context // spec.block_tokens)
        rule(pages <= batch.block_tables.shape[1], f"sequence {i} needs {pages} pages; its table has fewer")
        used = batch.block_tables[i, :pages]
        rule(
            bool(np.all((used >= 0) & (used < spec.num_blocks))),
            f"block ids of sequence {i} must be in [0, {spec.num_blocks}); got {used.tolist()}",
        )
    if (adapters := batch.adapters) is not None:
        rule(
            adapters.dtype == np.int32 and adapters.shape == (num_sequences,),
            f"adapters must be int32 [{num_sequences}]; got {adapters.dtype} {adapters.shape}",
        )
        wrong = next((slot for slot in adapters.tolist() if slot != -1 and slot not in slots), None)
        rule(wrong is None, f"no adapter is attached at slot {wrong}")


class ReferenceExecutor:
    """The `Executor` protocol in numpy. Linear layers use the dequantized weights in float32."""

    def __init__(self, program: Program, tensors: Mapping[str, StoredTensor | Float32], spec: ExecutorSpec) -> None:
        needed = {name for op in program for name in op.weights}
        self._program = program
        self._spec = spec
        self._tensors = {name: as_float32(tensors[name]) for name in needed}
        self.vocab_size = vocab_size(program, {name: tensor.shape for name, tensor in self._tensors.items()})
        self.num_blocks, self.block_tokens = spec.num_blocks, spec.block_tokens
        self.kv_block_bytes = spec.kv_block_bytes
        self._num_embeddings = next(self._tensors[op.weights[0]].shape[0] for op in program if op.kind == "embed")
        shape = (spec.num_layers, spec.num_blocks, spec.block_tokens, spec.kv_width)
        dtype = np.float16 if spec.kv_dtype == "f16" else np.float32
        self._keys: NDArray[np.floating] = np.zeros(shape, dtype)
        self._values: NDArray[np.floating] = np.zeros(shape, dtype)
        self._logits = np.empty((0, self.vocab_size), np.float32)
        self._slots: dict[int, Slot] = {}
        self._next_slot = 0
        self._adapters: dict[int, ReferenceAdapter] = {}

    def forward(self, batch: StepBatch) -> None:
        """Run the program once; see `Executor`."""
        check_batch(batch, self._spec, self._num_embeddings, self._adapters)
        step = _Step(batch, self._tensors, self._keys, self._values, self._adapters)
        for op in self._program:
            out = KINDS[op.kind](step, op)
            if out is not None:
                step.active[op.out] = out
        self._logits = step.active[LOGITS]

    def logits(self) -> Float32:
        """A copy of the last step's logits, float32 [R, V]."""
        return self._logits.copy()

    def pack_adapter(self, updates: Updates) -> PackedAdapter:
        """An adapter in float32; see `lora.TakesAdapters`."""
        check_updates(self._program, {name: tensor.shape for name, tensor in self._tensors.items()}, updates)
        return ReferenceAdapter({name: (as_float32(u.a), as_float32(u.b), u.scale) for name, u in updates.items()})

    def attach_adapter(self, packed: PackedAdapter) -> int:
        """The lowest free slot; see `lora.TakesAdapters`."""
        assert isinstance(packed, ReferenceAdapter), "packed by pack_adapter"
        slot = next(i for i in range(len(self._adapters) + 1) if i not in self._adapters)
        self._adapters[slot] = packed
        return slot

    def detach_adapter(self, slot: int) -> None:
        """Forget it."""
        if self._adapters.pop(slot, None) is None:
            raise ValueError(f"no adapter is attached at slot {slot}")

    def open_slot(self, params: SamplerParams, prompt: Int32) -> int:
        """A new sampler slot; see `Executor`. ValueError where a parameter or token is out of range."""
        check_params(params, self.vocab_size)
        _check_ids("prompt", prompt, self.vocab_size)
        slot = self._next_slot
        self._next_slot += 1
        self._slots[slot] = Slot(params, [int(token) for token in prompt])
        return slot

    def close_slot(self, slot: int) -> None:
        """Free the slot."""
        if self._slots.pop(slot, None) is None:
            raise ValueError(f"slot {slot} is not open")

    def sample(self, rows: Int32, slots: Int32, temperatures: Float32, forced: Int32) -> Int32:
        """Choose one token per slot; see `Executor`."""
        if not len(rows) == len(slots) == len(temperatures) == len(forced):
            raise ValueError("rows, slots, temperatures and forced must have the same length")
        if len(set(slots.tolist())) != len(slots):
            raise ValueError(f"the slots of one call must be distinct; got {slots.tolist()}")
        if missing := [slot for slot in slots.tolist() if slot not in self._slots]:
            raise ValueError(f"slot {missing[0]} is not open")
        if not np.all((temperatures >= 0) & np.isfinite(temperatures)):
            raise ValueError(f"temperatures must be finite and at least 0; got {temperatures.tolist()}")
        _check_ids("rows", rows, len(self._logits))
        _check_ids("forced", forced, self.vocab_size, lowest=-1)
        tokens = np.empty(len(rows), np.int32)
        for i, (row, slot_id) in enumerate(zip(rows, slots.tolist(), strict=True)):
            slot = self._slots[slot_id]
            token = int(forced[i])
            tokens[i] = token if token >= 0 else choose(self._logits[row], slot, float(temperatures[i]))
            slot.output.append(int(tokens[i]))
        return tokens

    def logprobs(self, rows: Int32, tokens: Int32, top_k: int) -> TokenLogprobs:
        """Raw log-probabilities of `tokens[i]` in logits row `rows[i]`; see `Executor`."""
        if len(rows) != len(tokens):
            raise ValueError(f"rows and tokens must have the same length; got {len(rows)} and {len(tokens)}")
        if not 0 <= top_k <= self.vocab_size:
            raise ValueError(f"top_k must be in [0, {self.vocab_size}]; got {top_k}")
        _check_ids("rows", rows, len(self._logits))
        _check_ids("tokens", tokens, self.vocab_size)
        return token_logprobs(self._logits, rows, tokens, top_k)


def as_float32(tensor: StoredTensor | Float32) -> Float32:
    """The values of a tensor, shaped, whatever format it is stored in."""
    if isinstance(tensor, StoredTensor):
        from temper.kernels.weights import dequantize

        values: Float32 = dequantize(tensor)
        return values
    return np.ascontiguousarray(tensor, np.float32)


def _check_ids(name: str, ids: Int32, bound: int, lowest: int = 0) -> None:
    if ids.ndim != 1 or ids.dtype != np.int32:
        raise ValueError(f"{name} must be int32 with 1 dimension; got {ids.dtype} {ids.shape}")
    if ids.size and not (ids.min() >= lowest and ids.max() < bound):
        raise ValueError(f"{name} must be in [{lowest}, {bound}); got {ids.min()} to {ids.max()}")
