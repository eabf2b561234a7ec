"""`augment`: more examples out of those there are, each marked with where it came from.

Other words, slips of the keyboard and a model's paraphrase change how something is asked; the answer stays. Other
numbers change the question, so its answer and its working are made again by the template and checked. `metrics` puts
figures of the example itself at the end of the question. What a record cannot bear is dropped with a reason.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from temper.engines.base import Engine
from temper.errors import Invalid
from temper.measure.quality.check import Check
from temper.measure.quality.generators import tasks
from temper.measure.quality.suite import draw, request_seed
from temper.measure.quality.texts import words
from temper.refine.data import wording
from temper.refine.data.leaks import keys_of
from temper.refine.data.paraphrase import paraphrase
from temper.refine.data.questions import Asked, expected_of, record_of, retold, verify
from temper.refine.data.reading import Located, read
from temper.refine.data.record import Record, Turn
from temper.refine.data.report import Tally
from temper.refine.data.writing import Output, Recipe

Tell = Callable[[str, int, int], None]
OPERATIONS: Final = ("synonyms", "typos", "numbers", "metrics", "paraphrase")
MAX_ATTEMPTS: Final = 20
"""Draws of other numbers until the question is another."""


@dataclass(frozen=True, slots=True)
class AugmentRecipe:
    """Every setting of one augmentation."""

    operations: tuple[str, ...] = ("synonyms", "typos", "numbers")
    """Each variant is made by one of them, in turns."""
    copies: int = 1
    """Variants of each record."""
    keep_original: bool = True
    rate: float = 0.15
    """Share of the words that may change which do."""
    seed: int = 0
    max_tokens: int = 512
    """Of a paraphrase."""
    temperature: float | None = None
    """Of the paraphrasing model; None: as its profile says."""
    concurrency: int = 8
    """Paraphrases asked for at once."""

    def __post_init__(self) -> None:
        if not self.operations or not set(self.operations) <= set(OPERATIONS):
            raise Invalid(f"operations are of {', '.join(OPERATIONS)}, but are {', '.join(self.operations) or 'none'}",
                          param="operations")  # fmt: skip
        if self.copies < 1 or self.concurrency < 1 or self.max_tokens < 1:
            raise Invalid("copies, concurrency and max_tokens are 1 or more, but are "
                          f"{self.copies}, {self.concurrency} and {self.max_tokens}", param="copies")  # fmt: skip
        if not 0 < self.rate <= 1:
            raise Invalid(f"a rate lies above 0 and up to 1, but is {self.rate}", param="rate")


@dataclass(frozen=True, slots=True)
class _Variant:
    operation: str
    record: Record | None
    reason: str = ""


async def augment(
    source: Path, out: Path, recipe: AugmentRecipe, tell: Tell, *, engine: Engine | None = None,
    table: wording.Table | None = None, resume: bool = True, check: Check | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write `source` and its variants to `out`; returns the manifest. `engine`, started, makes paraphrases.

    Variant k of record i depends on the seed, on i and on k alone (a paraphrase on the engine as well). A run that was
    killed goes on where it was.

    Raises:
        NotFound, Invalid: a file or a record cannot be read, or nothing is left.
        Rejected, EngineFailure: the engine broke, or is too busy.
    """
    if "paraphrase" in recipe.operations and engine is None:
        raise Invalid("a paraphrase needs a model, but none is named", param="engine", hint="name a profile or a URL")
    table = table or (*wording.ENGLISH, *wording.CHINESE)
    settings = {**asdict(recipe), "operations": list(recipe.operations), "table": [list(row) for row in table]}
    if engine is not None:
        settings["model"] = engine.capabilities().model
    work = _Work(recipe, table, engine, check or Check())
    with Output(out, Recipe("augment", settings, (source,)), resume=resume) as output:
        tally = Tally("made")
        tally.restore(output.state)
        seen = {record.content_key() for record in output.written()} if output.position else set[str]()
        records = ((n, located) for n, located in enumerate(read(source)) if n >= output.position)
        async for number, located, variants in _in_order(work, records, recipe.concurrency if engine else 1):
            tally.num_read += 1
            if recipe.keep_original and located.record.content_key() not in seen:
                seen.add(located.record.content_key())
                output.write(located.record)
            for variant in variants:
                if variant.record is not None and variant.record.content_key() not in seen:
                    seen.add(variant.record.content_key())
                    tally.counters["made"][variant.operation] += 1
                    output.write(variant.record)
                else:
                    reason = variant.reason or "as one before"
                    tally.drop(f"{variant.operation}: {reason}", located.where, "", located.record.prompt)
            output.advance(number + 1, tally.state())
            tell("augmenting", number + 1, 0)
        if not tally.num_read:
            raise Invalid(f"a data file holds one record or more, but '{source}' is empty", param="data")
        return output.finish({**tally.document(), "num_kept": output.num_records})


async def _in_order(
    work: _Work, records: Iterator[tuple[int, Located]], at_once: int
) -> AsyncIterator[tuple[int, Located, list[_Variant]]]:
    """Every record with its variants, in the order of the records, however the work on them overlaps."""
    waiting: deque[tuple[int, Located, asyncio.Task[list[_Variant]]]] = deque()
    try:
        for number, located in records:
            waiting.append((number, located, asyncio.create_task(work.variants(number, located))))
            if len(waiting) >= at_once:
                first, place, task = waiting.popleft()
                yield first, place, await task
        while waiting:
            first, place, task = waiting.popleft()
            yield first, place, await task
    finally:
        for _, _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, _, task in waiting), return_exceptions=True)


class _Work:
    """Makes the variants of one record."""

    def __init__(self, recipe: AugmentRecipe, table: wording.Table, engine: Engine | None, check: Check) -> None:
        self._recipe, self._table, self._engine, self._check = recipe, table, engine, check

    async def variants(self, number: int, located: Located) -> list[_Variant]:
        record = located.record
        try:
            return await self._made(number, record)
        except Invalid as error:
            raise located.error_of(error) from None

    async def _made(self, number: int, record: Record) -> list[_Variant]:
        made = []
        for copy in range(self._recipe.copies):
            operation = self._recipe.operations[(number * self._recipe.copies + copy) % len(self._recipe.operations)]
            rng = draw("augment", self._recipe.seed, number, copy)
            made.append(await self._variant(operation, record, rng, f"{number}-{copy}"))
        return made

    async def _variant(self, operation: str, record: Record, rng: random.Random, name: str) -> _Variant:
        if operation == "numbers":
            return self._renumbered(record, rng)
        asked = _asked(record)
        protected = self._protected(record)
        reason = "nothing in it may change"
        match operation:
            case "synonyms":
                changed = wording.synonyms(asked, rng, self._recipe.rate, self._table, protected)
            case "typos":
                changed = wording.typos(asked, rng, self._recipe.rate, protected)
            case "metrics":
                changed, reason = f"{asked}\n\n{metrics_line(record)}", ""
            case _:
                assert self._engine is not None
                changed, reason = await paraphrase(
                    self._engine, asked, id=f"paraphrase-{name}",
                    seed=request_seed(self._recipe.seed, f"paraphrase-{name}", 0), max_tokens=self._recipe.max_tokens,
                    temperature=self._recipe.temperature, kept=protected,
                )  # fmt: skip
        if not changed or changed == asked:
            return _Variant(operation, None, reason)
        return _Variant(operation, _reworded(record, changed, operation))

    def _renumbered(self, record: Record, rng: random.Random) -> _Variant:
        """Other numbers under the same words; answer and working are made and checked again."""
        question = retold(record)
        task = record.metadata.get("task")
        if question is None or not isinstance(task, str) or task not in tasks.TASKS:
            return _Variant("numbers", None, "no template to work the answer out again")
        kept = {name: value for name, value in question.operands.items() if name not in question.numbers}
        template = tasks.template(question.template)
        for _ in range(MAX_ATTEMPTS if question.numbers else 0):
            other = template.question(rng, kept)
            if other.text != question.text and other.level == question.level:
                made = record_of(Asked(task, 0, other), self._recipe.seed)
                verify(made, other, self._check)
                metadata = {**made.metadata, "seed": record.metadata.get("seed"),
                            "id": f"{record.metadata.get('id', 'record')}+numbers",
                            "augmented": {"by": "numbers", "of": None}}  # fmt: skip
                return _Variant("numbers", replace(made, metadata=metadata))
        return _Variant("numbers", None, "no numbers in it")

    def _protected(self, record: Record) -> list[str]:
        """Words that the answer depends on."""
        expected = expected_of(record)
        return list(expected.choices) if expected is not None else []


def metrics_line(record: Record) -> str:
    """Figures of an example, in brackets: length in words, lines of thinking, and its level where it has one."""
    thinking = record.response.partition("</think>")[0] if "</think>" in record.response else ""
    figures = {
        "words": len(words(_asked(record))),
        "steps": len([line for line in thinking.splitlines() if line.strip() and line.strip() != "<think>"]),
        "level": record.metadata.get("level"),
    }
    return f"[{', '.join(f'{name} {value}' for name, value in figures.items() if value is not None)}]"


def _asked(record: Record) -> str:
    """What may change: the last question of a conversation, or the plain text."""
    return next((turn.content for turn in reversed(record.messages) if turn.role == "user"), record.text)


def _reworded(record: Record, text: str, operation: str) -> Record:
    """The record with its question in other words; it names what it came from, so that no split divides the two."""
    metadata = dict(record.metadata)
    before = metadata.get("augmented")
    of = before.get("of") if isinstance(before, dict) else None
    metadata["augmented"] = {"by": operation, "of": of or keys_of(record).exact.hex()}
    if "id" in metadata:
        metadata["id"] = f"{metadata['id']}+{operation}"
    if not record.messages:
        return replace(record, text=text, metadata=metadata)
    turns = list(record.messages)
    last = max((at for at, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        return record
    turns[last] = Turn("user", text)
    return replace(record, messages=tuple(turns), metadata=metadata)
