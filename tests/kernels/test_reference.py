"""The numpy executor: its ops against formulas, its cache against a computation without one."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.kernels.executor import Executor, SamplerParams
from temper.kernels.reference import ReferenceExecutor, rms_norm, rope, silu_mul
from tests.kernels.programs import Shape, batch, program, spec, tensors


def build(shape: Shape, **changes: object) -> ReferenceExecutor:
    return ReferenceExecutor(program(shape), tensors(shape), spec(shape, **changes))


def test_is_an_executor() -> None:
    executor: Executor = build(Shape())
    assert executor.vocab_size == 101
    assert executor.kv_block_bytes == 2 * 2 * 16 * 16 * 4


def test_rms_norm_gives_unit_rms_per_slice() -> None:
    x = np.random.default_rng(0).standard_normal((3, 24)).astype(np.float32) * 7
    out = rms_norm(x, np.ones(8, np.float32), 0.0).reshape(-1, 8)
    np.testing.assert_allclose((out**2).mean(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_makes_dot_products_depend_on_distance_only(interleaved: bool) -> None:
    rng = np.random.default_rng(1)
    inv_freq = np.array([1.0, 0.1, 0.01], np.float32)
    q, k = rng.standard_normal((2, 1, 6)).astype(np.float32)

    def dot(at_q: int, at_k: int) -> float:
        turned = [rope(x, np.array([p], np.int32), inv_freq, 6, interleaved, 1.0) for x, p in ((q, at_q), (k, at_k))]
        return float(turned[0][0] @ turned[1][0])

    assert dot(7, 3) == pytest.approx(dot(104, 100), abs=1e-4)
    assert dot(5, 5) == pytest.approx(float(q[0] @ k[0]), abs=1e-5)


def test_silu_mul_at_the_ends() -> None:
    g = np.array([-200, 0, 200], np.float32)
    np.testing.assert_allclose(silu_mul(g, np.ones(3, np.float32)), [0, 0, 200], atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(
    length=st.integers(2, 60),
    cuts=st.sets(st.integers(1, 59), max_size=4),
    seed=st.integers(0, 99),
    window=st.sampled_from([0, 7]),
)
def test_chunks_pages_and_company_change_no_bit(length: int, cuts: set[int], seed: int, window: int) -> None:
    shape = Shape(window=window)
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, shape.vocab, length).tolist()
    whole = build(shape, block_tokens=4)
    whole.forward(batch([(tokens, 0, list(range(15)))]))
    chunked = build(shape, block_tokens=4)
    pages = rng.permutation(64).tolist()
    mine, theirs = pages[:15], pages[15:30]
    rows = []
    edges = [0, *sorted(c for c in cuts if c < length), length]
    for begin, end in itertools.pairwise(edges):
        other = rng.integers(0, shape.vocab, 3).tolist()
        chunked.forward(batch([(other, 0, theirs), (tokens[begin:end], begin, mine)]))
        rows.append(chunked.logits()[3:])
    np.testing.assert_array_equal(np.concatenate(rows), whole.logits())


def test_a_window_forgets_what_lies_before_it() -> None:
    shape = Shape(layers=1, window=4)
    executor = build(shape)
    outs = []
    for first in (1, 2):
        executor.forward(batch([([first, 5, 6, 7, 8], 0, [0])]))
        outs.append(executor.logits())
    np.testing.assert_array_equal(outs[0][4], outs[1][4])
    assert not np.array_equal(outs[0][3], outs[1][3])


def test_no_logit_rows_is_a_step_too() -> None:
    executor = build(Shape())
    step = batch([([1, 2, 3], 0, [0])])
    executor.forward(dataclasses.replace(step, logit_rows=np.empty(0, np.int32)))
    assert executor.logits().shape == (0, 101)


BAD_BATCHES = {
    "token": {"tokens": np.array([1, 101, 3], np.int32)},
    "negative token": {"tokens": np.array([1, -1, 3], np.int32)},
    "position": {"positions": np.array([0, 1, 3], np.int32)},
    "starts": {"q_starts": np.array([0, 4], np.int32)},
    "context": {"context_lens": np.array([2], np.int32)},
    "block": {"block_tables": np.array([[64]], np.int32)},
    "missing block": {"block_tables": np.array([[-1]], np.int32)},
    "no table": {"block_tables": np.empty((1, 0), np.int32)},
    "row": {"logit_rows": np.array([3], np.int32)},
    "rows out of order": {"logit_rows": np.array([2, 1], np.int32)},
    "dtype": {"tokens": np.array([1, 2, 3], np.int64)},
    "rank": {"tokens": np.array([[1, 2, 3]], np.int32)},
    "table rows": {"block_tables": np.array([[0], [1]], np.int32)},
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_malformed_batches_are_refused(name: str) -> None:
    step = dataclasses.replace(batch([([1, 2, 3], 0, [0])]), **BAD_BATCHES[name])
    with pytest.raises(ValueError):  # noqa: PT011
        build(Shape()).forward(step)


def test_forced_tokens_and_slots() -> None:
    executor = build(Shape())
    executor.forward(batch([([1, 2, 3], 0, [0])]))
    slot = executor.open_slot(SamplerParams(seed=1), np.array([1, 2, 3], np.int32))
    i32, f32 = np.int32, np.float32
    forced = executor.sample(np.array([2], i32), np.array([slot], i32), np.array([0.0], f32), np.array([77], i32))
    assert forced.tolist() == [77]
    greedy = executor.sample(np.array([2], i32), np.array([slot], i32), np.array([0.0], f32), np.array([-1], i32))
    assert greedy[0] == executor.logits()[2].argmax()
    executor.close_slot(slot)
    with pytest.raises(ValueError, match="not open"):
        executor.close_slot(slot)


def test_logprobs_sum_to_one() -> None:
    executor = build(Shape())
    executor.forward(batch([([1, 2, 3], 0, [0])]))
    found = executor.logprobs(np.array([1], np.int32), np.array([9], np.int32), 101)
    assert np.exp(found.top_logprobs).sum() == pytest.approx(1, abs=1e-4)
    assert found.logprobs[0] == found.top_logprobs[0, found.top_ids[0].tolist().index(9)]
