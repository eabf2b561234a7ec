"""Continued training that is to keep what was there: other data mixed in, and what was forgotten of it.

Experience replay in its plainest form: a share of the tokens of a run comes from data of the kind that the model knew
before. Forgetting is measured on records of that data that are never learned: their loss after training against that
before it, example by example. Source: Ibrahim et al., "Simple and Scalable Strategies to Continually Pre-train Large
Language Models", arXiv 2403.08763, section 5.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from temper.measure.quality.intervals import paired_mean
from temper.refine.train.batches import collate
from temper.refine.train.examples import Example
from temper.refine.train.loop import prepared
from temper.refine.train.losses import answer_loss
from temper.refine.train.recipe import Training
from temper.refine.train.records import Examples

CONFIDENCE = 0.95


def mixed(new: Examples, old: Examples, share: float, seed: int) -> Examples:
    """`new` with as much of `old` that this `share` of all tokens is from there; `kept` is what `old` holds out.

    Old examples are drawn by `seed`, and once all were, they are drawn again.
    """
    wanted = share / (1 - share) * sum(len(example) for example in new.train)
    rng = np.random.default_rng([seed, len(old.train)])
    drawn: list[Example] = []
    tokens = 0
    while tokens < wanted:
        for at in rng.permutation(len(old.train)):
            if tokens >= wanted:
                break
            drawn.append(old.train[at])
            tokens += len(old.train[at])
    return replace(
        new,
        train=(*new.train, *drawn),
        kept=old.held_out,
        num_dropped=new.num_dropped + old.num_dropped,
        num_cut=new.num_cut + old.num_cut,
        sha256=hashlib.sha256(f"{new.sha256} {old.sha256}".encode()).hexdigest(),
    )


def losses(model: Any, examples: Sequence[Example], settings: Training, resolved: Mapping[str, Any]) -> list[float]:
    """Nats a target of each example, as the model is."""
    model.eval()
    found = []
    with prepared(model, settings, resolved), torch.inference_mode():
        for example in examples[: settings.evaluation.examples]:
            with torch.autocast("cpu", torch.bfloat16, enabled=resolved["precision"] == "bf16"):
                found.append(float(answer_loss(model, collate([example])).total) / example.num_targets)
    return found


def forgetting(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """How much worse the same examples are predicted, in nats a target, with an interval paired by example."""
    worse = [b - a for a, b in zip(before, after, strict=True)]
    interval = paired_mean(worse, CONFIDENCE, None)
    return {
        "before": statistics.fmean(before),
        "after": statistics.fmean(after),
        "forgotten": statistics.fmean(worse),
        "interval": None if interval is None else [interval.low, interval.high],
        "confidence": CONFIDENCE,
        "examples": len(worse),
    }
