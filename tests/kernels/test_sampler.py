"""The sampler: native and reference choose the same tokens, with the probabilities that the rules give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from temper.kernels import _native
from temper.kernels.executor import SamplerParams
from temper.kernels.native import NativeExecutor, available_isas
from temper.kernels.ops import Op
from temper.kernels.reference import ReferenceExecutor
from temper.kernels.sampling_reference import Slot, adjusted, choose, exp32, keyed_bits
from tests.kernels.programs import Shape, batch, spec

I32, F32 = np.int32, np.float32
EXECUTORS = (NativeExecutor, ReferenceExecutor)


def with_logits(kind: type, rows: np.ndarray, **options: object) -> NativeExecutor | ReferenceExecutor:
    """An executor whose logits are exactly `rows` [R, V]."""
    count, vocab = rows.shape
    ops = (Op("embed", "x", (), ("e",)), Op("select_rows", "x", ("x",)), Op("linear", "logits", ("x",), ("w",)))
    identity = np.zeros((max(count, vocab), count), F32)
    identity[np.arange(count), np.arange(count)] = 1
    values = {"e": identity, "w": np.ascontiguousarray(rows.T)}
    executor = kind(ops, values, spec(Shape(), max_step_tokens=max(64, count)), **options)
    executor.forward(batch([(list(range(count)), 0, list(range(-(-count // 16))))]))
    np.testing.assert_array_equal(executor.logits(), rows)
    return executor


params = st.builds(
    SamplerParams,
    seed=st.integers(0, 2**64 - 1),
    sample_index=st.integers(0, 9),
    top_p=st.sampled_from([1.0, 0.99, 0.9, 0.5, 0.01]),
    top_k=st.sampled_from([0, 1, 2, 40, 100000]),
    min_p=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    presence_penalty=st.sampled_from([0.0, 0.5, -1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.3, -0.2]),
    no_repeat_ngram_size=st.sampled_from([0, 1, 2, 3]),
    logit_bias=st.sampled_from([(), ((0, 5.0), (3, -100.0))]),
    min_tokens=st.sampled_from([0, 3]),
    stop_token_ids=st.sampled_from([(), (1, 2)]),
)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_native_chooses_as_the_reference(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    vocab = data.draw(st.sampled_from([5, 16, 63, 1024, 3001]))
    count = data.draw(st.integers(1, 5))
    spread = data.draw(st.sampled_from([0.0, 0.3, 3.0, 30.0]))
    rows = (rng.standard_normal((count, vocab)) * spread).astype(F32)
    if data.draw(st.booleans()):
        rows = np.round(rows)  # many ties
    drawn = [data.draw(params) for _ in range(count)]
    prompt = rng.integers(0, vocab, data.draw(st.integers(0, 12))).astype(I32)
    temperatures = np.array([data.draw(st.sampled_from([0.0, 0.2, 1.0, 3.0])) for _ in range(count)], F32)
    tokens = []
    isa = data.draw(st.sampled_from(available_isas()))
    for executor in (with_logits(NativeExecutor, rows, threads=2, isa=isa), with_logits(ReferenceExecutor, rows)):
        slots = np.array([executor.open_slot(p, prompt) for p in drawn], I32)
        forced = np.full(count, -1, I32)
        chosen = [executor.sample(np.arange(count, dtype=I32), slots, temperatures, forced) for _ in range(6)]
        tokens.append(np.stack(chosen))
    np.testing.assert_array_equal(tokens[0], tokens[1])


@pytest.mark.parametrize("count", [1, 40])
def test_the_likeliest_is_found_whatever_writes_the_logits(count: int) -> None:
    """A head of two matrices, one of which is no whole number of panels wide, and logits that are no product."""
    rng = np.random.default_rng(count)
    rows = rng.standard_normal((count, 331)).astype(F32)
    rows[0, 5:330] = np.nan
    joined = (Op("linear", "logits", ("x",), ("w1", "w2")),)
    added = (Op("linear", "y", ("x",), ("w1", "w2")), Op("add", "logits", ("y", "y")))
    values = {"e": np.eye(count, dtype=F32), "w1": np.ascontiguousarray(rows.T[:101]),
              "w2": np.ascontiguousarray(rows.T[101:])}  # fmt: skip
    for head in (joined, added):
        ops = (Op("embed", "x", (), ("e",)), Op("select_rows", "x", ("x",)), *head)
        executor = NativeExecutor(ops, values, spec(Shape(), max_step_tokens=64), threads=2)
        executor.forward(batch([(list(range(count)), 0, list(range(-(-count // 16))))]))
        slots = np.array([executor.open_slot(SamplerParams(seed=0), np.zeros(0, I32)) for _ in range(count)], I32)
        chosen = executor.sample(np.arange(count, dtype=I32), slots, np.zeros(count, F32), np.full(count, -1, I32))
        np.testing.assert_array_equal(chosen, np.nanargmax(executor.logits(), axis=1))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.sampled_from([1, 2, 1000, 5000]), st.integers(0, 30), st.sampled_from([0.1, 3.0, 60.0]))
def test_logprobs(seed: int, vocab: int, top_k: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((3, vocab)) * spread).astype(F32)
    top_k = min(top_k, vocab)
    tokens = rng.integers(0, vocab, 3).astype(I32)
    found = [with_logits(kind, rows).logprobs(np.arange(3, dtype=I32), tokens, top_k) for kind in EXECUTORS]
    np.testing.assert_allclose(found[0].logprobs, found[1].logprobs, atol=1e-5, rtol=1e-6)
    np.testing.assert_array_equal(found[0].top_ids, found[1].top_ids)
    np.testing.assert_allclose(found[0].top_logprobs, found[1].top_logprobs, atol=1e-5, rtol=1e-6)
    exact = rows[0] - np.logaddexp.reduce(rows[0].astype(np.float64))
    assert found[0].logprobs[0] == pytest.approx(exact[tokens[0]], abs=1e-4)


def test_keys_are_the_same_hash() -> None:
    for triple in ((0, 0, 0), (1, 2, 3), (2**64 - 1, 7, 10**6), (12345, 0, 1)):
        assert _native.keyed_bits(*triple) == keyed_bits(*triple)
    assert len({keyed_bits(1, i, p) for i in range(50) for p in range(50)}) == 2500


def test_exp32_is_exact_to_two_units() -> None:
    x = np.linspace(-87, 88, 200_001, dtype=F32)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(exp32(x) / exact - 1)) < 2.5e-7
    np.testing.assert_array_equal(exp32(np.array([-100, np.nan, -np.inf], F32)), 0)


def expected(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """Probabilities [V] by the textbook."""
    p = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    order = np.argsort(-p, kind="stable")
    if top_k:
        p[order[top_k:]] = 0
    p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= top_p]] = 0
    p[p < min_p * p.max()] = 0
    return p / p.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0),
        (0.5, 0, 1.0, 0.0),
        (1.0, 5, 1.0, 0.0),
        (1.0, 0, 0.8, 0.0),
        (1.3, 0, 1.0, 0.1),
        (0.8, 12, 0.9, 0.05),
    ],
)
def test_frequencies_follow_the_distribution(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    draws, vocab = 20_000, 40
    logits = np.random.default_rng(5).normal(0, 1.5, (1, vocab)).astype(F32)
    executor = with_logits(NativeExecutor, logits)
    slot = executor.open_slot(SamplerParams(seed=7, top_k=top_k, top_p=top_p, min_p=min_p), np.empty(0, I32))
    args = np.zeros(1, I32), np.array([slot], I32), np.array([temperature], F32), np.full(1, -1, I32)
    counts = np.bincount([executor.sample(*args)[0] for _ in range(draws)], minlength=vocab)
    p = expected(logits[0], temperature, top_k, top_p, min_p)
    assert counts[p == 0].sum() == 0
    assert stats.chisquare(counts[p > 0], p[p > 0] * draws).pvalue > 1e-4


def test_a_token_depends_on_seed_sample_and_position_only() -> None:
    logits = np.zeros((3, 500), F32)
    executor = with_logits(NativeExecutor, logits, threads=3)
    hot = np.ones(1, F32)

    def draw(seed: int, sample: int, company: int, steps: int = 5) -> list[int]:
        slots = [executor.open_slot(SamplerParams(seed=seed, sample_index=sample), np.empty(0, I32))]
        slots += [executor.open_slot(SamplerParams(seed=99 + i), np.empty(0, I32)) for i in range(company)]
        n = len(slots)
        rows, ids = np.arange(n, dtype=I32)[::-1].copy(), np.array(slots[::-1], I32)
        out = [int(executor.sample(rows, ids, hot.repeat(n), np.full(n, -1, I32))[-1]) for _ in range(steps)]
        for slot in slots:
            executor.close_slot(slot)
        return out

    alone = draw(4, 0, 0)
    assert draw(4, 0, 2) == alone
    assert draw(4, 1, 0) != alone
    assert draw(5, 0, 0) != alone
    assert len(set(alone)) > 1


# -- adjustments against their definitions ---------------------------------------------------------


def adjusted_native(logits: list[float], prompt: list[int], output: list[int], **fields: object) -> list[int]:
    """Tokens from likeliest to least, as the native sampler ranks them after adjusting: greedy, one banned by one."""
    ranking: list[int] = []
    for _ in logits:
        bias = tuple((token, -1e30) for token in ranking)
        executor = with_logits(NativeExecutor, np.array([logits], F32))
        drawn = SamplerParams(seed=0, logit_bias=bias, **fields)  # type: ignore[arg-type]
        slot = np.array([executor.open_slot(drawn, np.array(prompt, I32))], I32)
        one, cold = np.zeros(1, I32), np.zeros(1, F32)
        for token in output:
            executor.sample(one, slot, cold, np.array([token], I32))
        ranking.append(int(executor.sample(one, slot, cold, np.full(1, -1, I32))[0]))
    return ranking


def test_repetition_penalty_sees_prompt_and_output() -> None:
    assert adjusted_native([3.0, 2.9, 2.8, -1.0, -1.1], [0], [1, 3], repetition_penalty=1.5)[:3] == [2, 0, 1]
    slot = Slot(SamplerParams(seed=0, repetition_penalty=2.0), [0], [3])
    np.testing.assert_allclose(adjusted(np.array([3, 2, 1, -1], F32), slot), [1.5, 2, 1, -2])


def test_presence_and_frequency_see_output_only() -> None:
    slot = Slot(SamplerParams(seed=0, presence_penalty=0.5, frequency_penalty=0.25), [0], [1, 1, 2])
    np.testing.assert_allclose(adjusted(np.ones(4, F32), slot), [1, 0, 0.25, 1])
    assert adjusted_native([1.0, 1.3, 1.2], [0], [1, 1, 2], presence_penalty=0.5, frequency_penalty=0.25) == [0, 2, 1]


def test_no_ngram_comes_twice() -> None:
    rng = np.random.default_rng(2)
    executor = with_logits(NativeExecutor, rng.normal(0, 1, (1, 6)).astype(F32))
    slot = executor.open_slot(SamplerParams(seed=3, no_repeat_ngram_size=3), np.array([1, 2, 3], I32))
    args = np.zeros(1, I32), np.array([slot], I32), np.full(1, 1.5, F32), np.full(1, -1, I32)
    text = [1, 2, 3] + [int(executor.sample(*args)[0]) for _ in range(60)]
    grams = [tuple(text[i : i + 3]) for i in range(len(text) - 2)]
    assert len(set(grams)) == len(grams)


def test_min_tokens_bans_the_stop_ids_until_then() -> None:
    for kind in EXECUTORS:
        executor = with_logits(kind, np.array([[9.0, 1, 0]], F32))
        slot = executor.open_slot(SamplerParams(seed=0, min_tokens=2, stop_token_ids=(0,)), np.empty(0, I32))
        args = np.zeros(1, I32), np.array([slot], I32), np.zeros(1, F32), np.full(1, -1, I32)
        assert [int(executor.sample(*args)[0]) for _ in range(4)] == [1, 1, 0, 0]


def test_everything_banned_falls_back_to_the_likeliest() -> None:
    slot = Slot(SamplerParams(seed=0, no_repeat_ngram_size=1), [0, 1, 2])
    assert choose(np.array([1, 3, 2], F32), slot, 1.0) == 1
    assert adjusted_native([1.0, 3.0, 2.0], [0, 1, 2], [], no_repeat_ngram_size=1)[0] == 1


def test_nan_and_infinite_logits_do_not_break_a_choice() -> None:
    rows = np.array([[np.nan, 1, np.nan, 2], [-np.inf, -np.inf, 0, -np.inf]], F32)
    slots = [Slot(SamplerParams(seed=s), []) for s in range(20)]
    assert {choose(rows[0], slot, 1.0) for slot in slots} == {1, 3}
    assert {choose(rows[1], slot, 1.0) for slot in slots} == {2}


@pytest.mark.parametrize(
    "fields",
    [
        {"top_p": 0.0}, {"top_p": 1.5}, {"top_p": float("nan")}, {"top_k": -1}, {"min_p": -0.1},
        {"repetition_penalty": 0.0}, {"presence_penalty": float("inf")}, {"no_repeat_ngram_size": -1},
        {"logit_bias": ((7, 1.0),)}, {"logit_bias": ((0, float("nan")),)}, {"stop_token_ids": (-1,)},
        {"min_tokens": -5}, {"seed": -1}, {"seed": 2**64},
    ],
)  # fmt: skip
def test_bad_parameters_are_refused(fields: dict[str, object]) -> None:
    for kind in EXECUTORS:
        executor = with_logits(kind, np.zeros((1, 4), F32))
        with pytest.raises(ValueError):  # noqa: PT011
            executor.open_slot(SamplerParams(**({"seed": 0} | fields)), np.empty(0, I32))  # type: ignore[arg-type]
