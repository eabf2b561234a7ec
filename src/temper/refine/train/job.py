"""`train_recipe`: from a recipe to checkpoints `last` and `best` in the folder of the run.

Puts the parts together; each does its own: the network, the examples, the loop, the run's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from temper import machine
from temper.errors import Invalid
from temper.models.manifest import Step
from temper.refine.network import Network, open_network
from temper.refine.telling import Tell
from temper.refine.train.curve import curve_page
from temper.refine.train.examples import Renderer
from temper.refine.train.gloo import together
from temper.refine.train.loop import Outcome, Watch, train
from temper.refine.train.losses import Loss, answer_loss
from temper.refine.train.peers import Peers
from temper.refine.train.recipe import DataConfig, Training, TrainRecipe
from temper.refine.train.records import Examples, read_examples, share_that_thinks
from temper.refine.train.replay import forgetting, losses, mixed
from temper.refine.train.run import Run
from temper.refine.train.students import Adapter, Student, WholeNetwork

CURVE = "loss.html"
BEFORE = "replayed-before"
"""Losses of what is not to be forgotten, before the first step."""
PEER = "temper.refine.train.peer"
FILES = ("train", "validation", "files")
"""Settings that name files, which a run knows by their content."""
BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""CPU features with which products in bfloat16 are faster than in float32."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run left behind."""

    outcome: Outcome
    history: Sequence[dict[str, Any]]
    checkpoints: dict[str, Path]
    """Folders of checkpoints, or of adapters: `last`, and `best` where there were held-out examples."""
    step: Step
    """As it stands in the history of `last`."""


def resolve(settings: Training) -> dict[str, Any]:
    """What `auto` means on this machine."""
    compute = settings.compute
    has_bf16 = bool(set(BF16_FLAGS) & set(machine.isa_flags()))
    precision = ("bf16" if has_bf16 else "fp32") if compute.precision == "auto" else compute.precision
    threads = max(1, int(machine.usable_cores()) // compute.processes) if compute.threads == "auto" else compute.threads
    return {"precision": precision, "threads": threads}


def open_learner(source: str, data: DataConfig, beside: Path, cache_dir: Path) -> Network:
    """The network of a checkpoint, to learn from `data`: where its answers think, so does the template from now on."""
    network = open_network(source, cache_dir)
    if share := share_that_thinks([beside / name for name in data.train]):
        network.use_template(network.checkpoint.template.for_thinking(always=share == 1))
    return network


def read_data(recipe: TrainRecipe, network: Network, beside: Path, tell: Tell) -> Examples:
    """The recipe's examples in the network's tokens; files that are not absolute lie `beside` the recipe."""
    data, batch, replay = recipe.data, recipe.batch, recipe.replay
    renderer = Renderer(network.checkpoint, loss_on=data.loss_on, turns=data.turns)

    def read(train: Sequence[str], held_out: Sequence[str], share: float) -> Examples:
        return read_examples(
            [beside / name for name in train], [beside / name for name in held_out], renderer,
            held_out_share=share, longest=batch.context_length, too_long=batch.too_long, tell=tell,
        )  # fmt: skip

    new = read(data.train, data.validation, data.validation_share)
    if replay is None:
        return new
    return mixed(new, read(replay.files, (), replay.held_out_share), replay.share, recipe.seed)


def train_recipe(
    recipe: TrainRecipe, beside: Path, cache_dir: Path, tell: Tell, watch: Watch, loss: Loss = answer_loss
) -> Trained:
    """Train as the recipe says, or go on where a killed run stood.

    Raises:
        NotFound, FetchFailed, CheckpointError: the model or a file cannot be had.
        Invalid: the data or the folder cannot be.
    """
    if loss is not answer_loss and recipe.compute.processes > 1:
        raise Invalid("a loss of one's own is trained in one process, for others do not know it",
                      param="compute.processes", hint="set it to 1")  # fmt: skip
    network = open_learner(recipe.model, recipe.data, beside, cache_dir)
    examples = read_data(recipe, network, beside, tell)
    run = Run(
        beside / recipe.out, what_decides(recipe, network.checkpoint.manifest_hash(), examples.sha256), resolve(recipe)
    )
    student = student_of(recipe, network, run)

    opening = {
        "recipe": recipe.model_dump(mode="json"),
        "beside": str(beside.resolve()),
        "cache_dir": str(cache_dir.resolve()),
    }
    with together(recipe, PEER, opening) as peers:
        if examples.kept and run.note(BEFORE) is None:
            run.put_note(BEFORE, {"losses": losses(network.model, examples.kept, recipe, run.resolved)})
        outcome = train(
            network.model, examples.train, recipe, run,
            held_out=examples.held_out, loss=loss, peers=peers, tell=tell, watch=watch,
        )  # fmt: skip
    return export(student, recipe, run, outcome, examples)


def train_along(recipe: TrainRecipe, beside: Path, cache_dir: Path, meet: Callable[[], Peers]) -> None:
    """Train in a process that another one started: the same model and data, no folder of its own."""
    network = open_learner(recipe.model, recipe.data, beside, cache_dir)
    examples = read_data(recipe, network, beside, lambda what, done, total: None)
    what = what_decides(recipe, network.checkpoint.manifest_hash(), examples.sha256)
    run = Run(beside / recipe.out, what, resolve(recipe), along=True)
    student_of(recipe, network, run)
    train(network.model, examples.train, recipe, run, held_out=examples.held_out, peers=meet())


def student_of(recipe: TrainRecipe, network: Network, run: Run) -> Student:
    """What the recipe trains of the network."""
    if recipe.lora is None:
        return WholeNetwork(network)
    dtype = torch.bfloat16 if run.resolved["precision"] == "bf16" else torch.float32
    return Adapter.beside(network, recipe.lora, recipe.seed, dtype)


def what_decides(recipe: Training, parent: str, data_sha256: str) -> dict[str, Any]:
    """All that decides the result, for a run to know itself by: models and data by their hashes, not their places."""
    settings = recipe.model_dump(
        mode="json", exclude={"out": True, "teacher": True, "saving": True, "compute": {"memory_bytes"}}
    )
    for part in ("data", "replay"):
        if settings.get(part) is not None:
            settings[part] = {name: value for name, value in settings[part].items() if name not in FILES}
    return {"recipe": settings, "parent": parent, "data_sha256": data_sha256}


def export(student: Student, recipe: TrainRecipe, run: Run, outcome: Outcome, examples: Examples) -> Trained:
    """Write `last` and `best`, and finish the run."""
    history = run.history()
    checkpoint = student.network.checkpoint
    measured: dict[str, Any] = {
        **asdict(outcome), "last_loss": history[-1]["loss"], "num_dropped": examples.num_dropped,
        "num_cut": examples.num_cut,
    }  # fmt: skip
    if (before := run.note(BEFORE)) is not None:
        after = losses(student.network.model, examples.kept, recipe, run.resolved)
        measured["replay"] = forgetting(before["losses"], after)
    step = Step(
        recipe="train" if recipe.lora is None else "lora",
        settings={**recipe.model_dump(mode="json"), **{"resolved": dict(run.resolved)}},
        parent=checkpoint.manifest_hash(),
        parent_source=checkpoint.source,
        data_sha256=examples.sha256,
        measured=measured,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    found = finish(student, run, outcome, step, f"{checkpoint.source} trained in {run.folder.name}")
    return Trained(outcome, history, found, step)


def finish(student: Student, run: Run, outcome: Outcome, step: Step, title: str) -> dict[str, Path]:
    """Write `last` and `best`, where they are not there yet, and the curve; returns both by name. The run is over."""
    found = {"last": run.folder / "last"}
    if not found["last"].exists():
        student.save(found["last"], step)
    if outcome.best_step is not None:
        found["best"] = run.folder / "best"
        if not found["best"].exists():
            student.put(run.load_best(outcome.best_step))
            student.save(found["best"], step)
    (run.folder / CURVE).write_text(curve_page(title, run.history()), "utf-8")
    run.finish({"outcome": asdict(outcome), "checkpoints": {name: path.name for name, path in found.items()}})
    return found
