"""The verbs that make, clean, vary and divide data to train on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.api.checkpoints import DEFAULT_MODEL, Progress
from temper.api.environment import Place, place
from temper.api.profiles import profile
from temper.api.running import build, fetch_all

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from temper.measure.subjects import Opened


def _silent(what: str, done: int, total: int) -> None:
    pass


def generate_data(
    out: str | Path,
    tasks: Mapping[str, float] | Sequence[str] = ("arithmetic", "words", "logic"),
    *,
    teacher: str | Path | None = None,
    teacher_model: str | None = None,
    teaching: Mapping[str, Any] | None = None,
    keep_out: Path | None = None,
    resume: bool = True,
    allow_weaker_isolation: bool = False,
    progress: Progress | None = None,
    where: Place | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write verified questions with step-by-step working to `out`; returns its manifest.

    `tasks` are names, `name=weight`, or weights by name. `settings` are those of `refine.data.generate.GenerateRecipe`
    (count, levels, seed, held_out_seed, …). `teacher` is a profile, a model, or a server's URL: its own working is
    taken instead of the templates', where its answer verifies; `teaching` are settings of `refine.data.teacher`.

    Raises:
        NotFound, Invalid, ProfileError: a task, a level, a file, a profile or `out` cannot be.
        MissingExtra, Unsupported: what a verifier needs is not here.
        EngineFailure, Rejected: the teacher broke, or stayed too busy.
    """
    from temper.measure.quality.check import Check
    from temper.refine.data.generate import GenerateRecipe, generate, task_weights
    from temper.refine.data.teacher import Teaching

    here, tell = where or place(), progress or _silent
    weights = dict(tasks) if isinstance(tasks, Mapping) else task_weights(tasks)
    taught = Teaching(**(teaching or {})) if teacher is not None else None
    recipe = GenerateRecipe(weights, teaching=taught, **settings)
    check = Check(allow_weaker_isolation=allow_weaker_isolation)

    async def work() -> dict[str, Any]:
        if teacher is None:
            return await generate(recipe, Path(out), tell, keep_out=keep_out, resume=resume, check=check)
        async with _opened(teacher, teacher_model, here) as opened:
            return await generate(
                recipe, Path(out), tell, engine=opened.subjects[0].engine, keep_out=keep_out, resume=resume, check=check
            )

    return asyncio.run(work())


def augment_data(
    source: str | Path,
    out: str | Path,
    *,
    engine: str | Path | None = None,
    engine_model: str | None = None,
    synonyms: Path | None = None,
    resume: bool = True,
    allow_weaker_isolation: bool = False,
    progress: Progress | None = None,
    where: Place | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write a data set and variants of its records to `out`; returns its manifest.

    `settings` are those of `refine.data.augment.AugmentRecipe` (operations, copies, rate, seed, …). `engine` is a
    profile, a model, or a server's URL: it makes paraphrases. `synonyms` is a table of one's own.

    Raises:
        NotFound, Invalid, ProfileError: a file, a record, a setting or a profile cannot be.
        EngineFailure, Rejected: the paraphrasing engine broke, or stayed too busy.
    """
    from temper.measure.quality.check import Check
    from temper.refine.data.augment import AugmentRecipe, augment
    from temper.refine.data.wording import read_table

    here, tell = where or place(), progress or _silent
    recipe = AugmentRecipe(**settings)
    table = None if synonyms is None else read_table(synonyms)
    check = Check(allow_weaker_isolation=allow_weaker_isolation)

    async def work() -> dict[str, Any]:
        if engine is None:
            return await augment(Path(source), Path(out), recipe, tell, table=table, resume=resume, check=check)
        async with _opened(engine, engine_model, here) as opened:
            asked = opened.subjects[0].engine
            return await augment(
                Path(source), Path(out), recipe, tell, engine=asked, table=table, resume=resume, check=check
            )

    return asyncio.run(work())


def clean_data(
    source: str | Path,
    out: str | Path,
    *,
    model: str = DEFAULT_MODEL,
    resume: bool = True,
    progress: Progress | None = None,
    where: Place | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write what is fit of `source` to `out`; returns its manifest, whose `report` says what was dropped and why.

    Lengths are counted in tokens of `model`, under its chat template. `settings` are those of
    `refine.data.clean.CleanRecipe`.

    Raises:
        NotFound, Invalid: a file, a record or a setting cannot be, or nothing is left.
        FetchFailed, CheckpointError: the model's tokenizer cannot be had.
        MissingExtra: a package of the extra `data` is not installed.
    """
    from temper.models.checkpoint import open_checkpoint
    from temper.refine.data.clean import CleanRecipe, Target, clean

    here, tell = where or place(), progress or _silent
    recipe = CleanRecipe(**settings)
    with open_checkpoint(model, here.cache_dir, progress, here.hub_endpoint) as checkpoint:
        target = Target(model, checkpoint.tokenizer, checkpoint.template)
        return clean(Path(source), Path(out), recipe, target, tell, resume=resume)


def split_data(
    source: str | Path,
    train: str | Path,
    test: str | Path,
    *,
    against: Sequence[Path] = (),
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Divide a data set so that no question stands on both sides; returns `{"train", "test", "report"}`.

    `settings` are those of `refine.data.split.SplitRecipe`; `against` are test sets that no record may stand in.

    Raises:
        NotFound, Invalid: a file cannot be read, the sides leak, or there is nothing to divide.
        MissingExtra: near-duplicates are to be found, and rensa is not installed.
    """
    from temper.refine.data.split import SplitRecipe, split

    recipe = SplitRecipe(**settings)
    return split(Path(source), Path(train), Path(test), recipe, progress or _silent, against=against)


def find_data_leaks(
    train: str | Path, test: str | Path, *, near: float | None = 0.95, progress: Progress | None = None
) -> dict[str, Any]:
    """Questions that stand in both data sets: `{"num_leaks", "by_kind", "leaks"}`.

    Raises:
        NotFound, Invalid: a file cannot be read.
        MissingExtra: near-duplicates are to be found, and rensa is not installed.
    """
    from temper.refine.data.split import check_leaks

    return check_leaks(Path(train), Path(test), near, progress or _silent).document()


def _opened(named: str | Path, model: str | None, here: Place) -> AbstractAsyncContextManager[Opened]:
    """The engine of a profile in this process, or the server at a URL."""
    from temper.measure import subjects

    if isinstance(named, str) and named.startswith(("http://", "https://")):
        return subjects.at_url(named, model, here.api_key)
    chosen = profile(named, where=here)
    fetch_all(chosen, here)
    return subjects.in_process(build(chosen, here))
