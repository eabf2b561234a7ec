"""The verbs that make checkpoints of checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.api.checkpoints import DEFAULT_MODEL, Progress
from temper.api.environment import Place, place
from temper.api.evaluating import evaluate
from temper.api.profiles import profile
from temper.api.running import build
from temper.errors import Invalid, MissingExtra

if TYPE_CHECKING:
    from temper.engines.base import Engine
    from temper.refine.network import Network
    from temper.refine.quantize.recipe import QuantizeRecipe
    from temper.refine.quantize.text import CalibrationText

KL_PASSAGES = 12
"""Passages of the text that comes with Temper over which a refined checkpoint is held against its parent."""


def quantize(
    source: str = DEFAULT_MODEL,
    out: str | Path = "",
    *,
    text: Path | None = None,
    seed: int = 0,
    size_bytes: int | None = None,
    measure: bool = True,
    progress: Progress | None = None,
    where: Place | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Put the linear layers of a checkpoint on fewer bits and write it to the folder `out`.

    `settings` are those of `refine.quantize.recipe.QuantizeRecipe`. Calibration reads `text`, or without it samples
    that the model writes itself from `seed`. `size_bytes` is what all weights may take: it becomes the recipe's
    `budget_bits`. With `measure` the result is held against its parent: divergence of its predictions, and perplexity
    of both, on the text that comes with Temper.

    Returns `{"out", "step", "num_bytes", "parent_bytes", "measured"}`, ready for JSON.

    Raises:
        NotFound, FetchFailed, CheckpointError: the parent cannot be had.
        Invalid: a setting, the text or `out` cannot be.
        MissingExtra: torch or transformers is not installed.
    """
    try:
        from temper.refine.formats.folder import check_free
        from temper.refine.network import open_network
        from temper.refine.quantize.checkpoint import budget_bits, check_fits
        from temper.refine.quantize.checkpoint import quantize as write
        from temper.refine.quantize.recipe import QuantizeRecipe
    except ImportError as error:
        raise missing_extra(error) from error

    here, tell = where or place(), progress or (lambda what, done, total: None)
    if size_bytes is not None:
        if settings.get("budget_bits") is not None:
            raise Invalid("a budget is given in bits a weight or in bytes, but both were given", param="size",
                          hint="leave one out")  # fmt: skip
        settings["budget_bits"] = 32.0  # until the network is here to say what the rest of it takes
    recipe, folder = QuantizeRecipe(**settings), Path(out or f"{Path(source.partition(':')[2] or source).stem}-small")
    check_free(folder)
    network = open_network(source, here.cache_dir)
    if size_bytes is not None:
        recipe = replace(recipe, budget_bits=budget_bits(network, size_bytes))
    check_fits(network, recipe)
    calibration = _calibration(network, recipe, text, seed, tell, here)
    step = write(network, recipe, calibration.token_ids, calibration.sha256, folder, tell)
    measured = _against_parent(folder, source, tell, here) if measure else {}
    return {
        "out": str(folder),
        "step": asdict(step),
        "num_bytes": _weight_bytes(folder),
        "parent_bytes": _weight_bytes(network.checkpoint.fetched.path),
        "measured": measured,
    }


def train(
    recipe: str | Path | Mapping[str, Any],
    changes: Sequence[str] = (),
    *,
    progress: Progress | None = None,
    watch: Callable[[Mapping[str, Any]], None] | None = None,
    where: Place | None = None,
) -> dict[str, Any]:
    """Train a model as a recipe says: a TOML file or plain data, with `changes` (`key=value`) on top.

    Files that the recipe names lie beside it (beside the working directory, for plain data). A run that was killed
    goes on when it is asked for again. `watch` is told each line of the history: step, loss, learning rate, ….

    Returns `{"out", "checkpoints", "outcome", "step", "history"}`, ready for JSON.

    Raises:
        NotFound, FetchFailed, CheckpointError: the model or the data cannot be had.
        Invalid: the recipe, the data or its folder cannot be.
        MissingExtra: torch or transformers is not installed.
    """
    try:
        from temper.refine.recipes import recipe_of
        from temper.refine.train.job import train_recipe
        from temper.refine.train.recipe import TrainRecipe
    except ImportError as error:
        raise missing_extra(error) from error

    here, tell = where or place(), progress or (lambda what, done, total: None)
    beside, wanted = recipe_of(TrainRecipe, recipe, changes)
    found = train_recipe(wanted, beside, here.cache_dir, tell, watch or (lambda line: None))
    return {
        "out": str(beside / wanted.out),
        "checkpoints": {name: str(path) for name, path in found.checkpoints.items()},
        "outcome": asdict(found.outcome),
        "step": asdict(found.step),
        "history": list(found.history),
    }


def merge(
    adapter: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    weight: float = 1.0,
    progress: Progress | None = None,
    where: Place | None = None,
) -> dict[str, Any]:
    """Add `weight` times an adapter's updates into its model, and write a checkpoint to `out`.

    `model` is the checkpoint that the adapter names itself, where it is left out.

    Returns `{"out", "model", "step", "num_bytes"}`, ready for JSON.

    Raises:
        NotFound, FetchFailed, CheckpointError: the model or the adapter cannot be had, or they do not fit.
        Invalid: `out` is taken, or the adapter names no model.
        MissingExtra: torch or transformers is not installed.
    """
    try:
        from temper.refine.lora.merge import merge as write
        from temper.refine.network import open_network
    except ImportError as error:
        raise missing_extra(error) from error
    from temper.models.adapter import base_model_of

    here, tell = where or place(), progress or (lambda what, done, total: None)
    source = model or base_model_of(Path(adapter))
    if not source:
        raise Invalid(f"'{adapter}' does not say which model it was trained beside", param="model", hint="name it")
    step = write(open_network(source, here.cache_dir), Path(adapter), Path(out), weight=weight, tell=tell)
    return {"out": str(out), "model": source, "step": asdict(step), "num_bytes": _weight_bytes(Path(out))}


def distill(
    recipe: str | Path | Mapping[str, Any],
    changes: Sequence[str] = (),
    *,
    progress: Progress | None = None,
    watch: Callable[[Mapping[str, Any]], None] | None = None,
    where: Place | None = None,
) -> dict[str, Any]:
    """Make a smaller checkpoint that predicts what its teacher does, as a recipe says; arguments as of `train`.

    The teacher's predictions are asked once of an engine in this process and kept in the run's folder.

    Returns `{"out", "checkpoints", "outcome", "step", "cut", "history"}`, ready for JSON.

    Raises:
        NotFound, FetchFailed, CheckpointError: the teacher or the data cannot be had.
        Invalid: the recipe, the data, the student or its folder cannot be.
        MissingExtra: torch or transformers is not installed.
    """
    try:
        from temper.refine.distill.job import distill_recipe
        from temper.refine.distill.recipe import DistillRecipe
        from temper.refine.recipes import recipe_of
    except ImportError as error:
        raise missing_extra(error) from error

    here, tell = where or place(), progress or (lambda what, done, total: None)
    beside, wanted = recipe_of(DistillRecipe, recipe, changes)

    @asynccontextmanager
    async def teacher() -> AsyncIterator[Engine]:
        engine = build(profile(wanted.teacher, in_process=True), here)
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()

    found = distill_recipe(wanted, beside, here.cache_dir, teacher, tell, watch or (lambda line: None))
    return {
        "out": str(beside / wanted.out),
        "checkpoints": {name: str(path) for name, path in found.checkpoints.items()},
        "outcome": asdict(found.outcome),
        "step": asdict(found.step),
        "cut": asdict(found.cut),
        "history": list(found.history),
    }


def export(
    source: str = DEFAULT_MODEL, out: str | Path = "", *, progress: Progress | None = None, where: Place | None = None
) -> dict[str, Any]:
    """Write a checkpoint as the GGUF file `out`, every value as it is.

    Returns `{"out", "num_bytes", "formats"}`, ready for JSON.

    Raises:
        NotFound, FetchFailed, CheckpointError: the checkpoint cannot be had.
        Invalid: `out` is taken or no .gguf, or the model has what GGUF has no exact words for.
        MissingExtra: torch is not installed.
    """
    from temper.models.checkpoint import open_checkpoint

    try:
        from temper.refine.formats.gguf import write_checkpoint
    except ImportError as error:
        raise missing_extra(error) from error

    path, here = Path(out), where or place()
    checkpoint = open_checkpoint(source, here.cache_dir, progress, endpoint=here.hub_endpoint)
    formats = write_checkpoint(path, checkpoint)
    return {"out": str(path), "num_bytes": path.stat().st_size, "formats": formats}


def missing_extra(error: ImportError) -> MissingExtra:
    """The error for a package that refining needs."""
    return MissingExtra(f"refining needs the package {error.name}", hint="pip install 'temper-llm[refine]'")


def _calibration(
    network: Network, recipe: QuantizeRecipe, text: Path | None, seed: int, tell: Progress, here: Place
) -> CalibrationText:
    from temper.refine.quantize.text import CalibrationText, from_file, from_model

    if not recipe.calibrates:
        return CalibrationText((), "")
    if text is not None:
        return from_file(text, network.checkpoint.tokenizer)

    async def written() -> CalibrationText:
        engine = build(profile(network.checkpoint.source, in_process=True), here)
        await engine.start()
        try:
            return await from_model(engine, recipe.calibration_tokens, recipe.window, seed, tell)
        finally:
            await engine.stop()

    return asyncio.run(written())


def _against_parent(folder: Path, parent: str, tell: Progress, here: Place) -> Mapping[str, Any]:
    """What the new checkpoint lost, as figures with intervals."""
    found = evaluate(
        str(folder), against=parent, suites=("kl", "perplexity"), count=KL_PASSAGES, seed=0, tell=tell, where=here
    )
    return {"suites": found["suites"]}


def _weight_bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))
