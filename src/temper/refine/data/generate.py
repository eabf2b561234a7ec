"""`generate`: verified examples from templates, or from a teacher whose answers are kept only when they verify."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from temper.engines.base import Engine
from temper.errors import Invalid
from temper.measure.quality.check import Check
from temper.refine.data.questions import Questions, held_out, record_of, retold, verify
from temper.refine.data.reading import records
from temper.refine.data.record import Record
from temper.refine.data.report import Tally
from temper.refine.data.teacher import Teaching, teach
from temper.refine.data.writing import Output, Recipe

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class GenerateRecipe:
    """Every setting of one generated data set."""

    tasks: Mapping[str, float]
    """How often each task is drawn, by name."""
    count: int = 1000
    """Questions that are drawn; a teacher may answer fewer."""
    levels: tuple[int, ...] = (1, 2, 3)
    seed: int = 0
    held_out_seed: int | None = None
    """Questions that `temper eval` asks at this seed are left out; None: none are."""
    held_out_count: int = 200
    """How many items of each suite are left out."""
    teaching: Teaching | None = None
    """None: the working comes from the templates."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise Invalid(f"a data set has 1 question or more, but count is {self.count}", param="count")
        if self.held_out_count < 1:
            raise Invalid(f"1 item or more is held out, but held_out_count is {self.held_out_count}", param="held_out")


async def generate(
    recipe: GenerateRecipe, out: Path, tell: Tell, *, engine: Engine | None = None, keep_out: Path | None = None,
    resume: bool = True, check: Check | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a data set of questions with working to `out`; returns its manifest.

    `engine` is the started teacher where the recipe has one. Questions that stand in `keep_out` are not asked. A
    run that was killed goes on where it was; a teacher's answers are then the same as far as its seeds decide them.

    Raises:
        NotFound, Invalid: a task, a level, a file or `out` cannot be; or the tasks have too few questions.
        MissingExtra, Unsupported: what a verifier needs is not here.
    """
    forbidden = _forbidden(recipe, keep_out)
    questions = Questions(recipe.tasks, recipe.levels, recipe.seed, forbidden)
    check, tally = check or Check(), Tally("kept")
    settings = {**asdict(recipe), "tasks": dict(recipe.tasks), "levels": list(recipe.levels)}
    if engine is not None:
        settings["teacher"] = engine.capabilities().model
    inputs = () if keep_out is None else (keep_out,)
    with Output(out, Recipe("generate", settings, inputs), resume=resume) as output:
        tally.restore(output.state)
        asked = (item for item in questions.first(recipe.count) if item.index >= output.position)
        if engine is None:
            for item in asked:
                record = record_of(item, recipe.seed)
                verify(record, item.question, check)
                output.write(record)
                _keep(tally, record)
                output.advance(item.index + 1, tally.state())
                tell("generating", item.index + 1, recipe.count)
        else:
            teaching = recipe.teaching or Teaching()
            async for lesson in teach(engine, asked, recipe.seed, teaching, check):
                if lesson.record is not None:
                    output.write(lesson.record)
                    _keep(tally, lesson.record)
                else:
                    tally.num_read += 1
                    tally.drop(lesson.reason, lesson.id, "", lesson.excerpt)
                output.advance(lesson.index + 1, tally.state())
                tell("asking the teacher", lesson.index + 1, recipe.count)
        return output.finish(_report(recipe, tally, output.num_records, len(forbidden)))


def _keep(tally: Tally, record: Record) -> None:
    tally.num_read += 1
    tally.counters["kept"][f"{record.metadata['task']}, level {record.metadata['level']}"] += 1


def _forbidden(recipe: GenerateRecipe, keep_out: Path | None) -> frozenset[str]:
    from temper.measure.quality.generators.question import key
    from temper.measure.quality.kinds import KINDS

    found: frozenset[str] = frozenset()
    if recipe.held_out_seed is not None:
        found |= held_out([name for name in recipe.tasks if name in KINDS], recipe.held_out_seed, recipe.held_out_count)
    if keep_out is not None:
        told = (retold(record) for record in records(keep_out))
        found |= {key(question) for question in told if question is not None}
    return found


def _report(recipe: GenerateRecipe, tally: Tally, num_kept: int, num_forbidden: int) -> dict[str, Any]:
    found = tally.document()
    by_task: dict[str, dict[str, int]] = {}
    for name, number in found.pop("kept").items():
        task, _, level = name.partition(", level ")
        by_task.setdefault(task, {})[level] = number
    return {
        "num_asked": recipe.count, "num_kept": num_kept, "kept_share": num_kept / recipe.count,
        "by_task_and_level": by_task, "num_held_out": num_forbidden, **found,
    }  # fmt: skip


def task_weights(names: Sequence[str]) -> dict[str, float]:
    """`name` or `name=weight` each, as a recipe has them.

    Raises:
        Invalid: a weight is no number, or a task is named twice.
        NotFound: there is no such task.
    """
    from temper.measure.quality.generators import tasks

    found: dict[str, float] = {}
    for given in names:
        name, sign, weight = given.partition("=")
        tasks.find(name)
        try:
            number = float(weight) if sign else 1.0
        except ValueError:
            raise Invalid(f"a weight is a number, but is '{weight}' in '{given}'", param="task") from None
        if name in found:
            raise Invalid(f"a task is named once, but '{name}' twice", param="task")
        found[name] = number
    return found
