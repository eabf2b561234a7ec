"""The torch executor gives what the model alone gives, however its tokens are cut into steps and batches."""

from __future__ import annotations

import numpy as np
import pytest

from temper.kernels.executor import ExecutorSpec, SamplerParams, StepBatch

torch = pytest.importorskip("torch", reason="the extra 'torch' is not installed")
transformers = pytest.importorskip("transformers", reason="the extra 'torch' is not installed")

from temper.engines.torch.attention import NAME, register  # noqa: E402
from temper.engines.torch.executor import TorchExecutor, measure_block_bytes  # noqa: E402

VOCAB, BLOCK = 97, 4
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
KINDS = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 5},
    "gemma2": {"sliding_window": 6, "query_pre_attn_scalar": 8},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6},
}
"""Plain attention, biases, norms of queries; windows; capped scores; sinks and experts."""


def tiny(kind: str):
    """(a random model with its own attention, the same one with ours)."""
    register()
    config = transformers.AutoConfig.for_model(kind, **SIZES, **KINDS[kind])
    torch.manual_seed(1)
    plain = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **KINDS[kind])
    paged = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=NAME).eval().float()
    paged.load_state_dict(plain.state_dict())
    return plain, paged


def executor(model, num_blocks: int = 64) -> TorchExecutor:
    spec = ExecutorSpec(0, 0, num_blocks, BLOCK, "f32", 64, 64)
    return TorchExecutor(model, VOCAB, spec, measure_block_bytes(model, BLOCK, "f32"))


def batch(parts: list[tuple[list[int], int, int, list[int]]]) -> StepBatch:
    """A step of (all tokens, first new one, last + 1, pages); logits of every new token."""
    tokens = [t for ids, start, end, _ in parts for t in ids[start:end]]
    positions = [p for _, start, end, _ in parts for p in range(start, end)]
    starts = np.cumsum([0, *(end - start for _, start, end, _ in parts)])
    tables = np.full((len(parts), max(len(pages) for *_, pages in parts)), -1, np.int32)
    for i, (*_, pages) in enumerate(parts):
        tables[i, : len(pages)] = pages
    return StepBatch(
        np.array(tokens, np.int32), np.array(positions, np.int32), starts.astype(np.int32),
        np.array([end for _, _, end, _ in parts], np.int32), tables, np.arange(len(tokens), dtype=np.int32),
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_and_companies_change_nothing(kind: str):
    plain, paged = tiny(kind)
    made = executor(paged)
    random = np.random.default_rng(0)
    texts = [random.integers(0, VOCAB, size).tolist() for size in (23, 17, 9)]
    with torch.inference_mode():
        expected = [plain(input_ids=torch.tensor([ids])).logits[0].float().numpy() for ids in texts]
    pages = [[3 + i for i in range(6)], [40, 12, 33, 20, 50], [9 + 20, 11, 60]]
    found = [np.empty_like(e) for e in expected]
    # Prefill chunks beside single tokens, in three lengths.
    steps = [
        [(0, 0, 7)], [(0, 7, 8), (1, 0, 5), (2, 0, 1)], [(0, 8, 9), (1, 5, 6), (2, 1, 2)], [(2, 2, 9), (0, 9, 10)],
        [(0, 10, 22), (1, 6, 16)], [(0, 22, 23), (1, 16, 17)],
    ]  # fmt: skip
    for step in steps:
        made.forward(batch([(texts[i], start, end, pages[i]) for i, start, end in step]))
        logits, at = made.logits(), 0
        for i, start, end in step:
            found[i][start:end] = logits[at : at + end - start]
            at += end - start
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4 * max(1.0, float(np.abs(theirs).max())))


def test_a_page_takes_what_it_says():
    _, paged = tiny("qwen2")
    # Keys and values, 3 layers, 2 heads of 8, 4 bytes.
    assert measure_block_bytes(paged, BLOCK, "f32") == BLOCK * 2 * 3 * 2 * 8 * 4
    assert measure_block_bytes(paged, BLOCK, "f16") == BLOCK * 2 * 3 * 2 * 8 * 2


def test_bad_steps_are_refused():
    _, paged = tiny("llama")
    made = executor(paged, num_blocks=4)
    for parts, words in (
        ([([VOCAB], 0, 1, [0])], "token ids"),
        ([([1], 0, 1, [4])], "page"),
        ([([1], 0, 1, [-1])], "page"),
        ([([1] * 5, 0, 5, [0])], "longer"),
        ([([1] * 80, 0, 80, [0] * 20)], "64 tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            made.forward(batch(parts))


def test_it_chooses_like_the_reference():
    from temper.kernels.sampling_reference import Slot, choose, token_logprobs

    _, paged = tiny("llama")
    made = executor(paged)
    made.forward(batch([([5, 6, 7], 0, 3, [0])]))
    logits = made.logits()
    params = SamplerParams(seed=11, top_p=0.9, top_k=40)
    slot = made.open_slot(params, np.array([5, 6, 7], np.int32))
    row, slots = np.array([2], np.int32), np.array([slot], np.int32)
    found = made.sample(row, slots, np.array([1.0], np.float32), np.array([-1], np.int32))
    twin = Slot(params, [5, 6, 7])
    first = choose(logits[2], twin, 1.0)
    assert found.tolist() == [first]
    assert made.sample(row, slots, np.array([1.0], np.float32), np.array([42], np.int32)).tolist() == [42]
    twin.output += [first, 42]
    third = made.sample(row, slots, np.array([1.0], np.float32), np.array([-1], np.int32))
    assert third.tolist() == [choose(logits[2], twin, 1.0)]
    rows, ids = np.array([0, 2], np.int32), np.array([3, 4], np.int32)
    ours, theirs = made.logprobs(rows, ids, 5), token_logprobs(logits, rows, ids, 5)
    np.testing.assert_array_equal(ours.top_ids, theirs.top_ids)
    np.testing.assert_allclose(ours.top_logprobs, theirs.top_logprobs, atol=1e-6)
    np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-6)
    made.close_slot(slot)
    with pytest.raises(ValueError, match="not open"):
        made.close_slot(slot)
