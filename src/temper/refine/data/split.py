"""`split`: train and test with no question in both.

Records that ask the same (by the letter, nearly, or by template and operands) are one group, and a group is never
divided. The result is then held against itself by `leaks`, which knows nothing of groups.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from temper.errors import Invalid
from temper.refine.data.leaks import NEAR, Leaks, find_leaks, keys_at, placed
from temper.refine.data.near import NearIndex
from temper.refine.data.reading import Located, read
from temper.refine.data.record import Record, read_record
from temper.refine.data.writing import Output, Recipe, records_of_lines

Tell = Callable[[str, int, int], None]
Side = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class SplitRecipe:
    """Every setting of one split."""

    share: float = 0.1
    """Of the records, that go to the test set."""
    seed: int = 0
    by: str | None = None
    """A field of the metadata: records with the same value stay together; the test set has values of its own."""
    sides: str | None = None
    """A field of the metadata that says `train` or `test` itself; then nothing is drawn, and a leak is refused."""
    near: float | None = NEAR
    """Similarity from which two questions count as one; None: only equal ones do."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise Invalid(f"the test set is a share between 0 and 1, but share is {self.share}", param="share")
        if self.by is not None and self.sides is not None:
            raise Invalid("records are kept together (by) or placed (sides), but both are given", param="sides")


def split(
    source: Path, train: Path, test: Path, recipe: SplitRecipe, tell: Tell, *, against: Sequence[Path] = ()
) -> dict[str, Any]:
    """Write both sets; returns `{"train", "test", "report"}` with their manifests.

    `against` are other test sets that no record may stand in. The same input and recipe give the same bytes; a
    run that was killed begins again.

    Raises:
        Invalid: a record cannot be read, the sides leak (the message says which), or there is nothing to divide.
        MissingExtra: near-duplicates are to be found, and rensa is not installed.
    """
    if train.resolve() == test.resolve():
        raise Invalid(f"train and test are two files, but both are '{train}'", param="test")
    settings = asdict(recipe)
    with (
        tempfile.TemporaryDirectory(dir=_parent(train), prefix=".split-") as folder,
        Output(train, Recipe("split", {**settings, "side": "train"}, (source, *against)), resume=False) as train_out,
        Output(test, Recipe("split", {**settings, "side": "test"}, (source, *against)), resume=False) as test_out,
    ):
        groups = _Groups(Path(folder) / "records.jsonl", recipe)
        for number, located in enumerate(read(source), 1):
            groups.add(located)
            tell("grouping", number, 0)
        _refuse_known(source, against, recipe, tell)
        to_test = groups.sides()
        for number, record in enumerate(groups.records()):
            (test_out if to_test[number] else train_out).write(record)
            tell("writing", number + 1, groups.num_records)
        leaks = find_leaks(placed(train_out.written(), train.name), placed(test_out.written(), test.name), recipe.near)
        leaks.refuse(f"'{train.name}' and '{test.name}'")
        report = {
            "num_records": groups.num_records,
            "num_groups": groups.num_groups,
            "largest_group": groups.largest,
            "num_train": train_out.num_records,
            "num_test": test_out.num_records,
            "test_share": test_out.num_records / groups.num_records,
            "leaks": 0,
        }
        manifests = {"train": train_out.prepare(report), "test": test_out.prepare(report)}
        train_out.place()
        test_out.place()
        return {**manifests, "report": report}


def check_leaks(train: Path, test: Path, near: float | None, tell: Tell) -> Leaks:
    """Whether two files share questions."""
    return find_leaks(_told(read(train), "reading train", tell), _told(read(test), "reading test", tell), near)


class _Groups:
    """Which records belong together, as a forest of their numbers; the records themselves wait on disk."""

    def __init__(self, spool: Path, recipe: SplitRecipe) -> None:
        self._recipe = recipe
        self._spool = spool
        self._lines = spool.open("w+b")
        self._offsets = array("Q")
        self._parent = array("Q")
        self._first: dict[bytes, int] = {}
        self._near: NearIndex | None = None
        self._placed: list[bool] = []
        self.num_groups = 0
        self.largest = 0

    @property
    def num_records(self) -> int:
        return len(self._parent)

    def add(self, located: Located) -> None:
        record, number = located.record, len(self._parent)
        self._offsets.append(self._lines.seek(0, 2))
        self._lines.write(record.line())
        self._parent.append(number)
        if self._recipe.sides is not None:
            self._placed.append(_side(located, self._recipe.sides) == "test")
        keys = keys_at(located)
        self._join(keys.exact, number)
        if keys.origin is not None:
            self._join(keys.origin, number)
        if keys.operands is not None:
            self._join(keys.operands, number)
        if self._recipe.by is not None:
            value = record.metadata.get(self._recipe.by)
            if value is None:
                raise Invalid(f"{located.where}: the split is by metadata.{self._recipe.by}, but this record has none",
                              param="by")  # fmt: skip
            self._join(f"by {value!r}".encode(), number)
        if keys.operands is None and self._recipe.near is not None:
            if self._near is None:
                self._near = NearIndex(self._recipe.near, self._prompt)
            for other, _ in self._near.all_near(record.prompt):
                self._unite(other, number)
            self._near.add(number, record.prompt)

    def sides(self) -> list[bool]:
        """Whether each record goes to the test set."""
        sizes: dict[int, int] = {}
        for number in range(self.num_records):
            root = self._root(number)
            sizes[root] = sizes.get(root, 0) + 1
        self.num_groups, self.largest = len(sizes), max(sizes.values(), default=0)
        if self._recipe.sides is not None:
            return self._placed
        if self.num_groups < 2:
            raise Invalid(
                f"a split needs records that ask different things, but all {self.num_records} belong together",
                param="data", hint="give more data, or split by nothing (leave --by out)",
            )  # fmt: skip
        wanted = self._recipe.share * self.num_records
        chosen, held = set[int](), 0
        for root in sorted(sizes, key=self._drawn):
            if held >= wanted:
                break
            if (held and held + sizes[root] - wanted > wanted - held) or len(chosen) + 1 == self.num_groups:
                continue  # too large a group: leave the place to smaller ones
            chosen.add(root)
            held += sizes[root]
        return [self._root(number) in chosen for number in range(self.num_records)]

    def records(self) -> Iterator[Record]:
        self._lines.flush()
        yield from records_of_lines(self._spool)

    def _drawn(self, root: int) -> bytes:
        return hashlib.blake2b(f"{self._recipe.seed}/{root}".encode(), digest_size=16).digest()

    def _prompt(self, number: int) -> str:
        self._lines.seek(self._offsets[number])
        return read_record(json.loads(self._lines.readline())).prompt

    def _join(self, known_by: bytes, number: int) -> None:
        self._unite(self._first.setdefault(known_by, number), number)

    def _root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def _unite(self, a: int, b: int) -> None:
        a, b = sorted((self._root(a), self._root(b)))
        self._parent[b] = a


def _side(located: Located, field: str) -> Side:
    said = located.record.metadata.get(field)
    if said == "train":
        return "train"
    if said == "test":
        return "test"
    raise Invalid(f"{located.where}: metadata.{field} says 'train' or 'test', but is {said!r}", param="sides")


def _refuse_known(source: Path, against: Sequence[Path], recipe: SplitRecipe, tell: Tell) -> None:
    """Refuse records that stand in other test sets."""
    for other in against:
        told = _told(read(source), f"holding against {other.name}", tell)
        find_leaks(told, read(other), recipe.near).refuse(f"'{source.name}' and '{other.name}'")


def _told(records: Iterator[Located], what: str, tell: Tell) -> Iterator[Located]:
    for number, located in enumerate(records, 1):
        yield located
        tell(what, number, 0)


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent
