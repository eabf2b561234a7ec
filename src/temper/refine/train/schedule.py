"""The learning rate of a step: up from zero, then down along a curve."""

from __future__ import annotations

import math

from temper.refine.train.recipe import ScheduleConfig

MAX_AUTO_WARMUP = 2000


def warmup_steps(schedule: ScheduleConfig, num_steps: int) -> int:
    """Steps of the warm-up, never more than there are."""
    if schedule.warmup_steps == "auto":
        return min(num_steps // 20, MAX_AUTO_WARMUP)
    return min(schedule.warmup_steps, num_steps)


def learning_rate(schedule: ScheduleConfig, peak: float, step: int, num_steps: int) -> float:
    """The rate of `step` (from 0) of `num_steps`."""
    warmup = warmup_steps(schedule, num_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.shape == "constant":
        return peak
    done = (step - warmup) / max(1, num_steps - 1 - warmup)
    left = 0.5 * (1 + math.cos(math.pi * min(1.0, done))) if schedule.shape == "cosine" else 1 - min(1.0, done)
    return peak * (schedule.floor + (1 - schedule.floor) * left)
