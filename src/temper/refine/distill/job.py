"""`distill_recipe`: from a recipe to a smaller checkpoint that predicts what its teacher does.

Puts the parts together: the student, the examples, the teacher's predictions, and the one training loop of the house.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from temper.engines.base import Engine
from temper.models.manifest import Step
from temper.refine.distill.adversarial import HarderRenderer
from temper.refine.distill.losses import DistillLoss
from temper.refine.distill.predictions import with_predictions
from temper.refine.distill.recipe import AdversarialConfig, DistillRecipe
from temper.refine.distill.student import Cut, keep_layers, make_student
from temper.refine.network import Network
from temper.refine.telling import Tell
from temper.refine.train.batches import Order, collate
from temper.refine.train.examples import Example
from temper.refine.train.job import finish, open_learner, resolve, what_decides
from temper.refine.train.loop import Outcome, Watch, prepared, train
from temper.refine.train.losses import answer_loss
from temper.refine.train.records import Examples, read_examples
from temper.refine.train.run import Run
from temper.refine.train.students import WholeNetwork

PREDICTIONS = "predictions"
"""Folder within the run's."""

Teacher = Callable[[], AbstractAsyncContextManager[Engine]]
"""Opens the teacher as a started engine."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """What a distillation left behind."""

    outcome: Outcome
    history: Sequence[dict[str, Any]]
    checkpoints: dict[str, Path]
    step: Step
    cut: Cut


def distill_recipe(
    recipe: DistillRecipe, beside: Path, cache_dir: Path, engine: Teacher, tell: Tell, watch: Watch
) -> Distilled:
    """Distil as the recipe says, or go on where a killed run stood.

    Raises:
        NotFound, FetchFailed, CheckpointError: the teacher or a file cannot be had.
        Invalid: the data, the student or the folder cannot be.
        Unsupported: the engine does not score.
    """
    network = open_learner(recipe.teacher, recipe.data, beside, cache_dir)
    examples = _examples(recipe, network, beside, recipe.adversarial, tell)
    parent = network.checkpoint.manifest_hash()
    run = Run(beside / recipe.out, what_decides(recipe, parent, examples.sha256), resolve(recipe))
    torch.set_num_threads(run.resolved["threads"])
    with torch.autocast("cpu", torch.bfloat16, enabled=run.resolved["precision"] == "bf16"):
        model, cut = _student(network, recipe, examples.train, run, tell)
    learned = list(examples.train)
    if recipe.loss.alpha:
        read = _read(recipe, learned)
        asked = [learned[at] for at in read]
        told = asyncio.run(_predicted(recipe, engine, parent, asked, run.folder / PREDICTIONS, tell))
        for at, example in zip(read, told, strict=True):
            learned[at] = example
    student = Network(network.checkpoint, model)
    loss = DistillLoss(recipe.loss, model, network.model if recipe.loss.gamma else None)
    outcome = train(model, learned, recipe, run, held_out=examples.held_out, loss=loss, tell=tell, watch=watch)
    return _export(student, recipe, beside, run, outcome, examples, cut, tell)


def _read(recipe: DistillRecipe, examples: Sequence[Example]) -> list[int]:
    """The examples that the schedule reaches: a teacher is not asked about the others."""
    schedule, batch = recipe.schedule, recipe.batch
    order = Order([len(example) for example in examples], recipe.seed, batch.packing, batch.context_length)
    if schedule.steps is None:
        return list(range(len(examples)))
    rows = [order.step(step, batch.batch_size) for step in range(schedule.steps)]
    return sorted({at for step in rows for row in step for at in row})


async def _predicted(
    recipe: DistillRecipe, engine: Teacher, parent: str, examples: Sequence[Example], folder: Path, tell: Tell
) -> list[Example]:
    async with engine() as opened:
        return await with_predictions(opened, parent, examples, recipe.loss.top_k, folder, tell)


def _examples(
    recipe: DistillRecipe, network: Network, beside: Path, adversarial: AdversarialConfig, tell: Tell
) -> Examples:
    data = recipe.data
    return read_examples(
        [beside / name for name in data.train],
        [beside / name for name in data.validation],
        HarderRenderer(network.checkpoint, data, adversarial, recipe.seed),
        held_out_share=data.validation_share,
        longest=recipe.batch.context_length,
        too_long=recipe.batch.too_long,
        tell=tell,
    )


def _student(
    network: Network, recipe: DistillRecipe, examples: Sequence[Example], run: Run, tell: Tell
) -> tuple[Any, Cut]:
    """The student as it begins. A run that goes on keeps the layers it chose, and puts its weights in by itself."""
    known = run.note("cut")
    if known is None:
        model, cut = make_student(network, recipe.student, examples, tell)
        run.put_note("cut", {**asdict(cut), "kept_layers": list(cut.kept_layers)})
        return model, cut
    config = recipe.student.model_copy(update={"layers": None})
    model, _ = make_student(network, config, examples, tell)
    keep_layers(model, known["kept_layers"])
    rises = {int(layer): rise for layer, rise in known["rises"].items()}
    return model, Cut(tuple(known["kept_layers"]), known["mlp_width"], rises)


def _export(
    student: Network, recipe: DistillRecipe, beside: Path, run: Run, outcome: Outcome, examples: Examples, cut: Cut,
    tell: Tell,
) -> Distilled:  # fmt: skip
    """Write `last` and `best`, and finish the run."""
    history = run.history()
    checkpoint = student.checkpoint
    measured = {
        **asdict(outcome), "last_loss": history[-1]["loss"], "cut": asdict(cut), "num_dropped": examples.num_dropped,
        "num_cut": examples.num_cut, **_apart(student, recipe, beside, run, tell),
    }  # fmt: skip
    step = Step(
        recipe="distill",
        settings={**recipe.model_dump(mode="json"), **{"resolved": dict(run.resolved)}},
        parent=checkpoint.manifest_hash(),
        parent_source=checkpoint.source,
        data_sha256=examples.sha256,
        measured=measured,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    title = f"{checkpoint.source} distilled in {run.folder.name}"
    found = finish(WholeNetwork(student), run, outcome, step, title)
    return Distilled(outcome, history, found, step, cut)


def _apart(student: Network, recipe: DistillRecipe, beside: Path, run: Run, tell: Tell) -> dict[str, float]:
    """Cross-entropy of the same held-out examples as they are and all made harder, in nats a token."""
    if not (recipe.data.validation or recipe.data.validation_share):
        return {}
    found = {}
    for name, share in (("clean", 0.0), ("adversarial", 1.0)):
        harder = recipe.adversarial.model_copy(update={"share": share})
        held_out = _examples(recipe, student, beside, harder, tell).held_out[: recipe.evaluation.examples]
        sums = [0.0, 0]
        student.model.eval()
        bf16 = run.resolved["precision"] == "bf16"
        with prepared(student.model, recipe, run.resolved), torch.inference_mode():
            for begin in range(0, len(held_out), recipe.batch.micro_batch):
                batch = collate(held_out[begin : begin + recipe.batch.micro_batch])
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    sums[0] += float(answer_loss(student.model, batch).total)
                sums[1] += batch.num_targets
        found[f"held_out_{name}"] = sums[0] / sums[1]
    return found
