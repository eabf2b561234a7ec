"""The verb that searches the settings of a training recipe: training judged by its held-out loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from temper.api.checkpoints import Progress
from temper.api.environment import Place
from temper.api.refining import missing_extra, train
from temper.errors import Invalid, TemperError


def search_training(
    recipe: Path,
    changes: Sequence[str] = (),
    *,
    num_trials: int,
    over: Sequence[str] = (),
    progress: Progress | None = None,
    watch: Callable[[Mapping[str, Any]], None] | None = None,
    where: Place | None = None,
) -> dict[str, Any]:
    """Train `num_trials` times with other values of the fields called `over`, and say which held-out loss was lowest.

    Without `over`, all fields that say their range and stand in tables of the recipe's are varied. Each trial is a run
    of its own below the recipe's `out`; a search that was killed goes on when it is asked for again.

    Returns `{"out", "over", "trials", "best"}`, ready for JSON; `best` has the trial's number, values, loss and folder.

    Raises:
        As `train`, and Invalid: the recipe holds no examples out, or a field says no range. A trial whose values cannot
        be trained (too large a batch for the memory, a loss that diverges) fails alone.
    """
    try:
        from temper.refine.recipes import read_recipe
        from temper.refine.train.recipe import TrainRecipe
    except ImportError as error:
        raise missing_extra(error) from error
    from temper.tuner.recipes import Value, search, searchable

    wanted = read_recipe(TrainRecipe, recipe, changes)
    if not (wanted.data.validation or wanted.data.validation_share):
        raise Invalid("a search judges by held-out examples, but the recipe has none", param="data.validation",
                      hint="set data.validation or data.validation_share")  # fmt: skip
    present = ["optimizer", "batch", "regularization", *(["lora"] if wanted.lora is not None else [])]
    fields = searchable(TrainRecipe, over, present)
    tell = progress or (lambda what, done, total: None)
    failures: dict[int, str] = {}

    def evaluate(number: int, values: Mapping[str, Value]) -> float | None:
        tell("trials", number, num_trials)
        folder = f"{wanted.out}/trial-{number:03}"
        done = recipe.parent / folder / "result.json"
        if not done.is_file():
            named = [f"{path}={json.dumps(value)}" for path, value in values.items()]
            try:
                train(recipe, [*changes, *named, f"out={json.dumps(folder)}"], watch=watch, where=where)
            except TemperError as error:
                failures[number] = str(error)
                return None
        loss = json.loads(done.read_bytes())["outcome"]["best_loss"]
        return None if loss is None else float(loss)

    trials = search(fields, evaluate, num_trials=num_trials, seed=wanted.seed)
    tell("trials", num_trials, num_trials)
    good = [trial for trial in trials if trial.loss is not None]
    if not good:
        raise TemperError(f"none of {num_trials} trials could be trained: {failures.get(0, '')}",
                          hint="train the recipe by itself first")  # fmt: skip
    best = min(good, key=lambda trial: trial.loss if trial.loss is not None else float("inf"))
    out = recipe.parent / wanted.out
    return {
        "out": str(out),
        "over": [field.path for field in fields],
        "trials": [{**asdict(trial), "failure": failures.get(trial.number)} for trial in trials],
        "best": {**asdict(best), "folder": str(out / f"trial-{best.number:03}")},
    }
