"""Every example once an epoch, any step without those before it, and rows that do not see each other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from temper.refine.train.attention import inputs, side_by_side
from temper.refine.train.batches import Order, collate, micro_batches
from temper.refine.train.examples import Example


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=80),
    packing=st.booleans(),
    batch_size=st.integers(1, 9),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_each_example_stands_in_each_epoch_once(lengths, packing, batch_size, epochs, seed):
    order = Order(lengths, seed, packing, 30)
    steps = order.num_steps(epochs, batch_size)
    found = [order.step(number, batch_size, epochs) for number in range(steps)]
    assert order.step(steps, batch_size, epochs) == []
    assert all(len(rows) == batch_size for rows in found[:-1])
    assert 0 < len(found[-1]) <= batch_size
    rows = [row for step in found for row in step]
    assert all(sum(lengths[at] for at in row) <= 30 for row in rows)
    assert Counter(at for row in rows for at in row) == dict.fromkeys(range(len(lengths)), epochs)
    again = Order(lengths, seed, packing, 30)
    for number in reversed(range(steps)):
        assert again.step(number, batch_size, epochs) == found[number]
    assert [at for group in micro_batches(found[0], 2) for at in group] == [at for row in found[0] for at in row]


def test_examples_side_by_side_are_as_if_alone():
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2)
    ).eval()  # fmt: skip
    examples = []
    for length in (5, 1, 9, 3):
        learned = random.random(length) < 0.5
        learned[0] = False
        token_ids = random.integers(0, 50, length).astype(np.int32)
        examples.append(Example(token_ids, learned, {"kept": random.random(int(learned.sum()))}))
    batch = collate(examples)
    assert batch.num_tokens == 18
    assert batch.num_targets == sum(example.num_targets for example in examples) == len(batch.extras["kept"])
    alone, targets = [], []
    with torch.inference_mode():
        for example in examples:
            logits = model(torch.from_numpy(example.token_ids.astype(np.int64))[None]).logits[0]
            alone.append(logits[np.flatnonzero(example.learned) - 1])
            targets += example.token_ids[example.learned].tolist()
        with side_by_side(model):
            together = model(**inputs(batch), logits_to_keep=batch.rows).logits[0]
    assert batch.targets.tolist() == targets
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    assert model.config._attn_implementation == "sdpa"
