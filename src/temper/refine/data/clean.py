"""`clean`: duplicates, lengths, languages and personal data; what goes, goes with a reason.

Records pass one after the other: read, measured in tokens of the model that will be trained, told apart by language,
looked through for personal data, and held against all that was kept. What was kept is remembered by keys and
signatures, not by its text.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from temper.errors import Invalid
from temper.models.chat_template import ChatTemplate
from temper.models.tokenizer import Tokenizer
from temper.refine.data import pii
from temper.refine.data.language import UNKNOWN, identifier
from temper.refine.data.near import NearIndex
from temper.refine.data.questions import retold
from temper.refine.data.reading import Located, read
from temper.refine.data.record import Record, Turn
from temper.refine.data.report import Tally
from temper.refine.data.writing import Output, Recipe
from temper.types import Message

Tell = Callable[[str, int, int], None]
PiiAction = Literal["flag", "mask", "drop", "off"]
PII_ACTIONS: Final = ("flag", "mask", "drop", "off")


@dataclass(frozen=True, slots=True)
class CleanRecipe:
    """Every setting of one cleaning."""

    min_tokens: int = 512
    max_tokens: int = 16384
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes that are kept; empty: all are, and only named."""
    min_confidence: float = 0.5
    """Below it a record's language is unknown, which is no reason to drop it: sums and code have none."""
    near: float | None = 0.95
    """Similarity from which a record is dropped for one that came before; None: only equal ones are."""
    pii: PiiAction = "flag"
    """Personal data and secrets: named in the metadata, masked in the text as well, the record dropped, or ignored."""
    drop_malformed: bool = False
    """Whether a line that is no record is dropped and counted; else it is an error."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise Invalid(
                f"lengths go from min_tokens up to max_tokens, but these are {self.min_tokens} and {self.max_tokens}",
                param="min_tokens",
            )
        if self.pii not in PII_ACTIONS:
            raise Invalid(f"pii is one of {', '.join(PII_ACTIONS)}, but is '{self.pii}'", param="pii")
        if not 0 <= self.min_confidence <= 1:
            raise Invalid(f"a confidence lies between 0 and 1, but is {self.min_confidence}", param="min_confidence")


@dataclass(frozen=True, slots=True)
class Target:
    """The model that the data is for: what its lengths are counted in."""

    name: str
    """Its source and hash, for the manifest."""
    tokenizer: Tokenizer
    template: ChatTemplate

    def num_tokens(self, record: Record) -> int:
        """Tokens of a record as the model will see it: under its chat template, or plain. The last answer counts with
        its thinking, which templates leave out of the turns before.

        Raises:
            Invalid: the template refuses the conversation.
        """
        if not record.messages:
            return len(self.tokenizer.encode(record.text, allow_special=False))
        messages = [Message(turn.role, turn.content) for turn in record.messages]
        last = messages.pop() if len(messages) > 1 and messages[-1].role == "assistant" else None
        shown = self.template.render(messages, add_generation_prompt=last is not None)
        if last is not None:
            shown += last.content or ""
        return len(self.tokenizer.encode(shown, add_special_tokens=False))


def clean(
    source: Path, out: Path, recipe: CleanRecipe, target: Target, tell: Tell, *, resume: bool = True
) -> dict[str, Any]:
    """Write what is left of `source` to `out`; returns its manifest, whose `report` says what was dropped and why.

    A run that was killed goes on where it was.

    Raises:
        NotFound, Invalid: a file or a record cannot be read, or nothing is left.
        MissingExtra: a package of the extra `data` is not installed.
    """
    settings = {**asdict(recipe), "languages": list(recipe.languages), "tokenizer": target.name}
    with Output(out, Recipe("clean", settings, (source,)), resume=resume) as output:
        cleaning = _Cleaning(recipe, target, output)
        for number, located in enumerate(read(source)):
            if number >= output.position:
                cleaning.take(located)
                output.advance(number + 1, cleaning.tally.state())
                tell("cleaning", number + 1, 0)
        if not cleaning.tally.num_read:
            raise Invalid(f"a data file holds one record or more, but '{source}' is empty", param="data")
        report = cleaning.tally.document()
        return output.finish({**report, "num_kept": output.num_records,
                              "kept_share": output.num_records / report["num_read"]})  # fmt: skip


class _Cleaning:
    """One run: the tests in their order, and what was kept so far."""

    def __init__(self, recipe: CleanRecipe, target: Target, output: Output) -> None:
        self._recipe, self._target, self._output = recipe, target, output
        self.tally = Tally("languages", "pii", "tokens")
        self.tally.restore(output.state)
        self._identify = identifier(recipe.languages)
        self._exact: set[bytes] = set()
        self._offsets = array("Q")
        self._near = None if recipe.near is None else NearIndex(recipe.near, self._kept_text)
        offset = 0
        for record in output.written() if output.position else ():
            self._exact.add(_key(record))
            if self._near is not None and retold(record) is None:
                self._near.add(len(self._offsets), record.all_text)
            self._offsets.append(offset)
            offset += len(record.line())

    def take(self, located: Located) -> None:
        """Keep a record or drop it."""
        self.tally.num_read += 1
        if isinstance(located.found, Invalid):
            if not self._recipe.drop_malformed:
                raise located.error
            self.tally.drop("malformed", located.where, located.found.message, "")
            return
        try:
            record = self._without_pii(self._of_a_language(self._of_a_length(located.found)))
            self._remember(record)
        except Invalid as error:
            if not self._recipe.drop_malformed:
                raise located.error_of(error) from None
            self.tally.drop("malformed", located.where, error.message, located.found.all_text)
            return
        except _Unfit as unfit:
            self.tally.drop(unfit.reason, located.where, unfit.detail, located.found.all_text)
            return
        self._output.write(record)

    def _of_a_length(self, record: Record) -> Record:
        try:
            num_tokens = self._target.num_tokens(record)
        except Invalid as error:
            raise _Unfit("refused by the chat template", error.message) from None
        self.tally.counters["tokens"][_bin(num_tokens)] += 1
        if num_tokens < self._recipe.min_tokens:
            raise _Unfit("too short", f"{num_tokens} tokens, and {self._recipe.min_tokens} are the least")
        if num_tokens > self._recipe.max_tokens:
            raise _Unfit("too long", f"{num_tokens} tokens, and {self._recipe.max_tokens} are the most")
        return record.with_metadata(num_tokens=num_tokens)

    def _of_a_language(self, record: Record) -> Record:
        language, confidence = self._identify(record.all_text)
        if confidence < self._recipe.min_confidence:
            language = UNKNOWN
        self.tally.counters["languages"][language] += 1
        if language == UNKNOWN:
            return record
        if self._recipe.languages and language not in self._recipe.languages:
            raise _Unfit(
                "another language", f"{language} ({confidence:.0%}), and {', '.join(self._recipe.languages)} are kept"
            )
        return record.with_metadata(language=language, language_confidence=round(confidence, 3))

    def _without_pii(self, record: Record) -> Record:
        if self._recipe.pii == "off":
            return record
        parts = [turn.content for turn in record.messages] or [record.text]
        findings = [pii.find(part) for part in parts]
        kinds = Counter(finding.kind for found in findings for finding in found)
        self.tally.counters["pii"].update(kinds)
        if not kinds:
            return record
        shown = ", ".join(f"{kind} × {count}" for kind, count in sorted(kinds.items()))
        if self._recipe.pii == "drop":
            raise _Unfit("personal data", shown)
        record = record.with_metadata(pii=dict(sorted(kinds.items())))
        if self._recipe.pii == "flag":
            return record
        masked = [pii.mask(part, found) for part, found in zip(parts, findings, strict=True)]
        if not record.messages:
            return replace(record, text=masked[0])
        turns = tuple(Turn(turn.role, text) for turn, text in zip(record.messages, masked, strict=True))
        return replace(record, messages=turns)

    def _remember(self, record: Record) -> None:
        """Note a record as kept, unless it, or one like it, is already.

        Records of a known template are told apart to the letter: there one digit makes another question.
        """
        known_by = _key(record)
        if known_by in self._exact:
            raise _Unfit("exact duplicate", "the same words stand in a record before")
        if self._near is not None and retold(record) is None:
            like = self._near.add_if_new(len(self._offsets), record.all_text)
            if like is not None:
                raise _Unfit("near-duplicate", f"{like[1]:.1%} like record {like[0] + 1} of the output")
        self._exact.add(known_by)
        self._offsets.append(self._output.offset)

    def _kept_text(self, number: int) -> str:
        return self._output.line_at(self._offsets[number]).all_text


class _Unfit(Exception):
    """Why a record goes."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def _key(record: Record) -> bytes:
    return bytes.fromhex(record.content_key())[:16]


def _bin(num_tokens: int) -> str:
    """The power of two that a length lies above, so that a report stays short: `00512`."""
    return f"{1 << max(num_tokens.bit_length() - 1, 0):05}+"
