"""Data files read for training: which records are learned, which are held out, and a hash that names the files.

Files and shapes are `refine.data`'s, tokens `examples`'.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from temper.errors import Invalid, TemperError
from temper.models.tokenizer import THINK_OPEN
from temper.refine.data.reading import files_of, read
from temper.refine.data.record import Record
from temper.refine.telling import Tell
from temper.refine.train.examples import Example, Renderer

LOOKED_AT: Final = 64
"""Records at the beginning of a file that tell whether its answers think."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What was read."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    num_dropped: int
    """Examples longer than a row, left out."""
    num_cut: int
    """Examples longer than a row, cut."""
    sha256: str
    """Of all files, in their order."""
    kept: tuple[Example, ...] = ()
    """Held out of what is replayed."""


def share_that_thinks(files: Sequence[Path]) -> float:
    """The share of answers at the beginnings of data files that begin with thinking; 0 where there are none.

    Raises:
        NotFound: a file is not there.
        Invalid: a line is no record (names file and line).
    """
    thinks = [
        turn.content.lstrip().startswith(THINK_OPEN)
        for path in files
        for located in itertools.islice(read(path), LOOKED_AT)
        for turn in located.record.messages
        if turn.role == "assistant"
    ]
    return sum(thinks) / max(len(thinks), 1)


def read_examples(
    train: Sequence[Path],
    held_out: Sequence[Path],
    renderer: Renderer,
    *,
    held_out_share: float,
    longest: int,
    too_long: str,
    tell: Tell,
) -> Examples:
    """Examples of data files, no longer than `longest` tokens each.

    With `held_out_share`, that share of the `train` records is held out, by a hash of their content: equal records
    land on one side, and a file that grows keeps its split.

    Raises:
        NotFound: a file is not there.
        Invalid: a line is no record (names file and line), or nothing is left to learn from.
    """
    digest = hashlib.sha256()
    sides: tuple[list[Example], list[Example]] = ([], [])
    limit = _Limit(longest, too_long)
    for files, is_held_out in ((train, False), (held_out, True)):
        for path in files:
            for file in files_of(path):
                with file.open("rb") as raw:
                    digest.update(hashlib.file_digest(raw, "sha256").digest())
            for number, located in enumerate(read(path)):
                if number % 256 == 0:
                    tell(f"reading {path.name}", number, 0)
                record = located.record
                side = is_held_out or (held_out_share > 0 and _fraction(record) < held_out_share)
                try:
                    sides[side].extend(limit.apply(renderer.examples(record)))
                except TemperError as error:
                    raise type(error)(f"{located.where}: {error.message}", param="data", hint=error.hint) from error
    named = ", ".join(path.name for path in train)
    if not sides[0]:
        raise Invalid(
            f"there must be an example to learn from, but {named} leaves none"
            + (f": {limit.num_dropped} are longer than {longest} tokens" if limit.num_dropped else ""),
            param="data.train",
            hint="raise batch.context_length, or set batch.too_long = 'cut'" if limit.num_dropped else None,
        )
    if (held_out or held_out_share) and not sides[1]:
        raise Invalid(f"there must be a held-out example, but {named} leaves none", param="data.validation",
                      hint="give more records, or a larger validation_share")  # fmt: skip
    return Examples(tuple(sides[0]), tuple(sides[1]), limit.num_dropped, limit.num_cut, digest.hexdigest())


class _Limit:
    def __init__(self, longest: int, too_long: str) -> None:
        self.longest, self.too_long = longest, too_long
        self.num_dropped = self.num_cut = 0

    def apply(self, examples: Sequence[Example]) -> list[Example]:
        kept = []
        for example in examples:
            if len(example) <= self.longest:
                kept.append(example)
                continue
            if self.too_long == "refuse":
                raise Invalid(f"an example has {self.longest} tokens at most (batch.context_length), but this one has "
                              f"{len(example)}", hint="raise it, or set batch.too_long to 'drop' or 'cut'")  # fmt: skip
            short = Example(example.token_ids[: self.longest], example.learned[: self.longest])
            if self.too_long == "cut" and short.num_targets:
                self.num_cut += 1
                kept.append(short)
            else:
                self.num_dropped += 1
        return kept


def _fraction(record: Record) -> float:
    return int(record.content_key()[:16], 16) / 2**64
