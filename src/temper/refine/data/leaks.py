"""Whether two data sets share questions: by the letter, nearly, or by the template and operands they are made of.

Only what is asked counts: a question of the test set whose answer stands elsewhere in other words is a leak all the
same. Records of a known template are compared by template and operands instead of nearness, because there a single
digit makes another task.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any, Final, Literal

from temper.errors import Invalid
from temper.measure.quality.generators.question import key
from temper.refine.data.near import NearIndex
from temper.refine.data.questions import retold
from temper.refine.data.reading import Located
from temper.refine.data.record import Record

NEAR: Final = 0.95
MAX_SHOWN: Final = 20
EXCERPT: Final = 80

Kind = Literal["exact", "near", "operands", "wording"]


@dataclass(frozen=True, slots=True)
class Leak:
    """A record of one set that asks what one of the other asks."""

    kind: Kind
    train: str
    """Where it stands."""
    test: str
    similarity: float
    excerpt: str
    """How the question of the training set begins."""

    def document(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        why = {
            "exact": "the same question",
            "operands": "the same template and operands",
            "wording": "the same question in other words",
        }.get(self.kind, f"{self.similarity:.1%} of the words in common")
        return f"{self.train} and {self.test}: {why}"


class Leaks:
    """Leaks that were found, the first ones in full."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.shown: list[Leak] = []

    def __bool__(self) -> bool:
        return bool(self.counts)

    def add(self, leak: Leak) -> None:
        """Count one."""
        self.counts[leak.kind] += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(leak)

    def document(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "num_leaks": self.counts.total(), "by_kind": dict(self.counts),
            "leaks": [leak.document() for leak in self.shown],
        }  # fmt: skip

    def refuse(self, what: str) -> None:
        """Raise `Invalid` if there are any; its message names the first ones."""
        if self:
            first = "; ".join(map(str, self.shown[:3]))
            more = "" if self.counts.total() <= 3 else f"; and {self.counts.total() - 3} more"
            raise Invalid(f"{what} share {self.counts.total()} questions: {first}{more}", param="data",
                          hint="let the split keep them together, or drop them")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keys:
    """What a question is known by."""

    exact: bytes
    """Of its words."""
    operands: bytes | None
    """Of its template and operands; None where it has no known template."""
    origin: bytes | None = None
    """`exact` of the question that it is another wording of; None where it says none."""


def keys_at(located: Located) -> Keys:
    """As `keys_of`; an error says where the record stands."""
    record = located.record
    try:
        return keys_of(record)
    except Invalid as error:
        raise located.error_of(error) from None


def keys_of(record: Record) -> Keys:
    """All of them, 16 bytes each.

    Raises:
        Invalid: the record names a template that its operands do not fit.
    """
    question = retold(record)
    operands = None if question is None else _digest(key(question))
    return Keys(_digest(normal(record.prompt)), operands, _origin(record))


def _origin(record: Record) -> bytes | None:
    said = record.metadata.get("augmented")
    of = said.get("of") if isinstance(said, Mapping) else None
    if of is None:
        return None
    if isinstance(of, str) and re.fullmatch(r"[0-9a-f]{32}", of):
        return bytes.fromhex(of)
    raise Invalid(f"metadata.augmented.of is the key of a question, but is {of!r}", param="metadata")


def normal(text: str) -> str:
    """A text without what changes nothing: case and white space."""
    return " ".join(text.casefold().split())


class Spool:
    """Texts on disk, by number, so that only their places are in memory."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._ends = array("Q", [0])

    def add(self, text: str) -> int:
        """Keep a text; returns its number."""
        raw = text.encode()
        self._file.seek(self._ends[-1])
        self._file.write(raw)
        self._ends.append(self._ends[-1] + len(raw))
        return len(self._ends) - 2

    def text(self, number: int) -> str:
        """The text with that number."""
        begin, end = self._ends[number], self._ends[number + 1]
        self._file.seek(begin)
        return self._file.read(end - begin).decode()

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()


class QuestionIndex:
    """Questions of one set, to hold those of another against."""

    def __init__(self, near: float | None = NEAR) -> None:
        """`near`: the similarity from which two texts count as one; None: only what is equal does."""
        self._near_threshold = near
        self._spool = Spool()
        self._near: NearIndex | None = None
        self._exact: dict[bytes, int] = {}
        self._operands: dict[bytes, int] = {}
        self._places: list[str] = []
        self._near_places: list[int] = []

    def add(self, located: Located) -> None:
        """Remember a question."""
        number, record = len(self._places), located.record
        self._places.append(located.where)
        keys = keys_at(located)
        self._exact.setdefault(keys.exact, number)
        if keys.origin is not None:
            self._exact.setdefault(keys.origin, number)
        if keys.operands is not None:
            self._operands.setdefault(keys.operands, number)
        elif self._near_threshold is not None:
            self._near_index().add(self._spool.add(record.prompt), record.prompt)
            self._near_places.append(number)

    def leak(self, located: Located) -> Leak | None:
        """The remembered question that a record asks as well."""
        where, record = located.where, located.record
        keys, excerpt = keys_at(located), record.prompt[:EXCERPT]
        if keys.exact in self._exact:
            return Leak("exact", where, self._places[self._exact[keys.exact]], 1.0, excerpt)
        if keys.origin is not None and keys.origin in self._exact:
            return Leak("wording", where, self._places[self._exact[keys.origin]], 1.0, excerpt)
        if keys.operands is not None:
            number = self._operands.get(keys.operands)
            return None if number is None else Leak("operands", where, self._places[number], 1.0, excerpt)
        if self._near_threshold is not None and self._near_places:
            found = self._near_index().nearest(record.prompt)
            if found is not None:
                return Leak("near", where, self._places[self._near_places[found[0]]], found[1], excerpt)
        return None

    def close(self) -> None:
        """Give the disk space back."""
        self._spool.close()

    def _near_index(self) -> NearIndex:
        """Made when a record is met that needs it, so that procedural sets need no extra package."""
        if self._near is None:
            assert self._near_threshold is not None
            self._near = NearIndex(self._near_threshold, self._spool.text)
        return self._near


def find_leaks(train: Iterable[Located], test: Iterable[Located], near: float | None = NEAR) -> Leaks:
    """Every record of `train` that asks a question of `test`.

    Raises:
        Invalid: a record cannot be read.
        MissingExtra: near-duplicates are to be found, and rensa is not installed.
    """
    index, found = QuestionIndex(near), Leaks()
    try:
        for located in test:
            index.add(located)
        for located in train:
            leak = index.leak(located)
            if leak is not None:
                found.add(leak)
    finally:
        index.close()
    return found


def placed(records: Iterable[Record], name: str) -> Iterator[Located]:
    """Records under a name, numbered from 1."""
    for number, record in enumerate(records, 1):
        yield Located(record, f"{name}:{number}")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
