"""A search over the fields of a recipe that say their range: learning rate, batch, dropout, rank, ….

Thin on purpose: one trial after another, judged by one number, least is best. Proposals depend on the seed and the
trials before alone, so a search that was broken off is replayed: what is finished answers at once. Knows nothing of
training; whoever asks brings `evaluate`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import optuna
from pydantic import BaseModel

from temper.errors import Invalid
from temper.profile.presets import nearest
from temper.profile.walk import Field, tunable_fields

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class RecipeTrial:
    """One set of values, and what came of it."""

    number: int
    values: Mapping[str, Value]
    """By dotted path."""
    loss: float | None
    """None where it failed."""


def searchable(schema: type[BaseModel], names: Sequence[str], present: Sequence[str]) -> list[Field]:
    """The fields to vary: those called `names` (a dotted path or an end of one), or all in the tables `present`.

    Raises:
        Invalid: a name is none of a field that says its range.
    """
    known = {field.path: field for field in tunable_fields(schema)}
    if not names:
        return [field for path, field in known.items() if path.split(".")[0] in present]
    chosen = []
    for name in names:
        found = [field for path, field in known.items() if path == name or path.endswith(f".{name}")]
        if len(found) != 1:
            hint = nearest(name, known) if not found else f"write one of {', '.join(field.path for field in found)}"
            raise Invalid(f"a search varies fields that say their range, but not '{name}'", param="over", hint=hint)
        chosen.append(found[0])
    return chosen


def search(
    fields: Sequence[Field],
    evaluate: Callable[[int, Mapping[str, Value]], float | None],
    *,
    num_trials: int,
    seed: int,
) -> list[RecipeTrial]:
    """Try `num_trials` sets of values by TPE, told the loss of each; None stands for a set that fails."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(3, num_trials // 3)))
    study = optuna.create_study(sampler=sampler, direction="minimize")
    trials = []
    for number in range(num_trials):
        asked = study.ask()
        values = {field.path: _suggested(asked, field) for field in fields}
        loss = evaluate(number, values)
        good = loss is not None and math.isfinite(loss)
        study.tell(asked, loss if good else None, None if good else optuna.trial.TrialState.FAIL)
        trials.append(RecipeTrial(number, values, loss if good else None))
    return trials


def _suggested(trial: optuna.Trial, field: Field) -> Value:
    """A value in the field's range; whole numbers on a logarithmic scale are powers of two, which divide each other."""
    tunable = field.tunable
    assert tunable is not None
    if tunable.choices:
        return tunable.choices[trial.suggest_int(field.path, 0, len(tunable.choices) - 1)]
    low, high = tunable.low or 0.0, tunable.high or 1.0
    if field.annotation is int:
        if tunable.scale == "log":
            return int(2 ** trial.suggest_int(field.path, math.ceil(math.log2(low)), math.floor(math.log2(high))))
        return trial.suggest_int(field.path, int(low), int(high))
    return trial.suggest_float(field.path, low, high, log=tunable.scale == "log")
