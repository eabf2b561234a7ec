"""How a request's tokens are chosen, resolved: request over preset over profile over checkpoint over neutral.

Knows the layers and the shapes of temperature schedules. The draw itself is the executor's.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temper.errors import Invalid
from temper.kernels.executor import SamplerParams
from temper.types import NEUTRAL, Sampling, TemperatureSchedule

if TYPE_CHECKING:
    from temper.profile.native import SamplingConfig, ScheduleConfig
    from temper.profile.presets import TaskPreset

PresetLookup = Callable[[str], "TaskPreset"]
"""A task preset by name; raises `NotFound` for a name it does not have."""

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 5.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1 << 31),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.0, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "no_repeat_ngram_size": (0, 1 << 20),
}
_ABOVE_LOW = frozenset({"top_p", "repetition_penalty"})
"""Fields whose lower bound itself is not allowed."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Every choice made: nothing is None that has a value."""

    temperature: float
    schedule: TemperatureSchedule | None
    values: Mapping[str, float]
    """The remaining fields of `NEUTRAL` by name."""
    seed: int
    preset: str | None
    logit_bias: tuple[tuple[int, float], ...]

    def params(self, sample_index: int, min_tokens: int, stop_token_ids: tuple[int, ...]) -> SamplerParams:
        """What the executor needs for one sample."""
        v = self.values
        return SamplerParams(
            seed=self.seed,
            sample_index=sample_index,
            top_p=v["top_p"],
            top_k=int(v["top_k"]),
            min_p=v["min_p"],
            repetition_penalty=v["repetition_penalty"],
            presence_penalty=v["presence_penalty"],
            frequency_penalty=v["frequency_penalty"],
            no_repeat_ngram_size=int(v["no_repeat_ngram_size"]),
            logit_bias=self.logit_bias,
            min_tokens=min_tokens,
            stop_token_ids=stop_token_ids,
        )


def resolve(
    request: Sampling,
    profile: SamplingConfig,
    generation_defaults: Mapping[str, float],
    presets: PresetLookup,
    vocab_size: int,
) -> Resolved:
    """Merge the layers field by field; within one layer a schedule goes before a plain temperature.

    A preset that the request names stands over the whole profile; the profile's own preset stands
    under the profile's own fields.

    Raises:
        Invalid: a value of the request is out of range.
        NotFound: there is no such preset.
    """
    _check(request, vocab_size)
    layers: list[Mapping[str, Any]] = [_fields(request)]
    if request.preset is not None:
        layers.append(_fields(presets(request.preset).sampling))
    layers.append(_fields(profile))
    if profile.preset is not None:
        layers.append(_fields(presets(profile.preset).sampling))
    layers.append({k: v for k, v in generation_defaults.items() if k in NEUTRAL and v is not None})
    layers.append(NEUTRAL)

    values = {name: next(layer[name] for layer in layers if name in layer) for name in NEUTRAL}
    schedule = None
    for layer in layers:  # an explicit temperature ends the search: it overrides lower layers' schedules
        if "temperature_schedule" in layer:
            schedule = _as_schedule(layer["temperature_schedule"])
            break
        if "temperature" in layer:
            break
    return Resolved(
        temperature=float(values.pop("temperature")),
        schedule=schedule,
        values=values,
        seed=secrets.randbits(64) if request.seed is None else request.seed & 0xFFFFFFFFFFFFFFFF,
        preset=request.preset if request.preset is not None else profile.preset,
        logit_bias=request.logit_bias,
    )


def scheduled_temperature(schedule: TemperatureSchedule, step: int, paragraph_step: int) -> float:
    """Temperature for the token `step` of a sample, which is token `paragraph_step` of its paragraph."""
    if schedule.kind == "list":
        return schedule.values[min(step, len(schedule.values) - 1)]
    at = paragraph_step if schedule.kind == "paragraph" else step
    share = min(at / schedule.steps, 1.0)
    if schedule.kind == "cosine":
        share = (1.0 - math.cos(math.pi * share)) / 2.0
    return schedule.start + (schedule.end - schedule.start) * share


def _fields(layer: Sampling | SamplingConfig) -> dict[str, Any]:
    names = (*NEUTRAL, "temperature_schedule")
    return {name: value for name in names if (value := getattr(layer, name)) is not None}


def _as_schedule(value: TemperatureSchedule | ScheduleConfig) -> TemperatureSchedule:
    if isinstance(value, TemperatureSchedule):
        return value
    return TemperatureSchedule(value.kind, value.values, value.start, value.end, value.steps)


def _check(request: Sampling, vocab_size: int) -> None:
    for name, (low, high) in _RANGES.items():
        value = getattr(request, name)
        if value is None:
            continue
        if not low <= value <= high or (value == low and name in _ABOVE_LOW):  # NaN fails the first test
            left = "above" if name in _ABOVE_LOW else "at least"
            raise Invalid(f"{name} must be {left} {low} and at most {high}, got {value}", param=name)
    for token, bias in request.logit_bias:
        if not 0 <= token < vocab_size:
            raise Invalid(f"logit_bias names token {token}; the vocabulary has {vocab_size}", param="logit_bias")
        if not -100 <= bias <= 100:
            raise Invalid(f"logit_bias must lie between -100 and 100, got {bias}", param="logit_bias")
    schedule = request.temperature_schedule
    if schedule is not None:
        numbers = schedule.values if schedule.kind == "list" else (schedule.start, schedule.end)
        if not numbers or not all(0 <= t <= 5 for t in numbers) or schedule.steps < 1:
            raise Invalid(
                "a temperature_schedule needs temperatures between 0 and 5 and at least 1 step "
                f"(a list at least one value), got {schedule}",
                param="temperature_schedule",
            )
