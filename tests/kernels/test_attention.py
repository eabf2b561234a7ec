"""Paged attention: against the reference over drawn shapes, and the same bits whatever shares the step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.kernels.native import NativeExecutor, available_isas, load_executor
from temper.kernels.reference import ReferenceExecutor
from tests.kernels.programs import Shape, batch, program, spec, tensors

heads = st.tuples(st.integers(1, 7), st.integers(1, 3)).map(lambda pair: (pair[0] * pair[1], pair[1]))


@settings(deadline=None, max_examples=20)
@given(
    heads=heads,
    head_dim=st.sampled_from([2, 8, 16, 20, 48, 64, 80]),
    length=st.integers(1, 700),
    window=st.sampled_from([0, 0, 1, 33, 300]),
    block_tokens=st.sampled_from([16, 32, 64, 128, 256]),
    dtype=st.sampled_from(["f16", "f32"]),
    isa=st.sampled_from(available_isas()),
    seed=st.integers(0, 99),
)
def test_against_the_reference(
    heads: tuple[int, int], head_dim: int, length: int, window: int, block_tokens: int, dtype: str, isa: str, seed: int
) -> None:
    shape = Shape(layers=1, heads=heads[0], kv_heads=heads[1], head_dim=head_dim, window=window, hidden=24, mlp=16)
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, shape.vocab, length).tolist()
    sizes = {"block_tokens": block_tokens, "kv_dtype": dtype, "max_step_tokens": 700, "max_logit_rows": 700}
    pages = rng.permutation(64).tolist()
    step = batch([(tokens, 0, pages)])
    outs = []
    for executor in (
        ReferenceExecutor(program(shape), tensors(shape), spec(shape, **sizes)),
        load_executor(program(shape), tensors(shape), spec(shape, **sizes), isa=isa, threads=2),
    ):
        executor.forward(step)
        outs.append(executor.logits())
    # Where a key or a value lies between two halves, the two sides may round it apart: one unit of the largest logit.
    atol = max(2e-3, 2.0**-11 * float(np.abs(outs[0]).max())) if dtype == "f16" else 5e-4
    np.testing.assert_allclose(outs[1], outs[0], atol=atol)


class Stream:
    """One sequence that is fed in chunks; collects the logits of each of its tokens."""

    def __init__(self, tokens: list[int], cuts: list[int], pages: list[int]) -> None:
        edges = [0, *cuts, len(tokens)]
        self.pages = pages
        self.chunks = [(tokens[a:b], a) for a, b in itertools.pairwise(edges)]
        self.logits: list[np.ndarray] = []


def run_together(executor: NativeExecutor, streams: list[Stream]) -> None:
    for step in range(max(len(stream.chunks) for stream in streams)):
        alive = [stream for stream in streams if step < len(stream.chunks)]
        executor.forward(batch([(*stream.chunks[step], stream.pages) for stream in alive]))
        logits, at = executor.logits(), 0
        for stream in alive:
            count = len(stream.chunks[step][0])
            stream.logits.append(logits[at : at + count])
            at += count


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_bits_depend_on_the_own_context_only(data: st.DataObject) -> None:
    shape = Shape(
        layers=2, heads=6, kv_heads=2, head_dim=16, hidden=40, mlp=48, window=data.draw(st.sampled_from([0, 70]))
    )
    length = data.draw(st.integers(2, 600))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    tokens = rng.integers(0, shape.vocab, length).tolist()
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=5)))
    if data.draw(st.booleans()):  # end in single tokens, as decoding does
        cuts = sorted({*cuts, *range(max(1, length - 4), length)})
    sizes = {"num_blocks": 200, "block_tokens": 32, "max_step_tokens": 2048, "max_logit_rows": 2048}

    def build(threads: int, isa: str) -> NativeExecutor:
        return load_executor(program(shape), tensors(shape), spec(shape, **sizes), threads=threads, isa=isa)

    alone = Stream(tokens, [], list(range(20)))
    run_together(build(1, available_isas()[0]), [alone])
    pages = rng.permutation(200).tolist()
    mine = Stream(tokens, cuts, pages[:20])
    company = []
    for i in range(data.draw(st.integers(0, 6))):
        other = rng.integers(0, shape.vocab, int(rng.integers(1, 300))).tolist()
        company.append(
            Stream(
                other,
                sorted({*rng.integers(1, 300, 3).tolist()} & set(range(1, len(other)))),
                pages[20 + 10 * i : 30 + 10 * i],
            )
        )
    isa = data.draw(st.sampled_from(available_isas()))
    run_together(build(data.draw(st.integers(1, 4)), isa), [*company, mine])
    np.testing.assert_array_equal(np.concatenate(mine.logits), alone.logits[0])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_long_single_stream_is_split_over_threads_without_a_trace(threads: int) -> None:
    shape = Shape(layers=1, heads=3, kv_heads=1, head_dim=64, hidden=32, mlp=16)
    sizes = {"num_blocks": 100, "block_tokens": 32, "max_step_tokens": 3000, "max_logit_rows": 3000}
    tokens = np.random.default_rng(3).integers(0, shape.vocab, 3000).tolist()
    whole = load_executor(program(shape), tensors(shape), spec(shape, **sizes))
    whole.forward(batch([(tokens, 0, list(range(94)))]))
    stepped = load_executor(program(shape), tensors(shape), spec(shape, **sizes), threads=threads)
    stepped.forward(batch([(tokens[:2990], 0, list(range(94)))]))
    for at in range(2990, 3000):
        stepped.forward(batch([(tokens[at : at + 1], at, list(range(94)))]))
        np.testing.assert_array_equal(stepped.logits()[0], whole.logits()[at])
