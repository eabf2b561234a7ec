"""A data file that appears when it is whole, goes on after a kill where it stopped, and has its manifest beside it.

Records gather in a hidden `.part` file of JSON lines; `advance` notes now and then how far the input is read, how far
the file goes, and what the recipe must remember. A run that finds a note of the same recipe on the same input cuts the
file back to it and goes on, so that the bytes are those of an undisturbed run. Parquet is written from the lines at the
end, row group by row group.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from temper.errors import Invalid
from temper.refine.data.reading import arrow, files_of
from temper.refine.data.record import Record, read_record

SCHEMA: Final = "temper.data/1"
MANIFEST_SUFFIX: Final = ".manifest.json"
OUTPUT_SUFFIXES: Final = (".jsonl", ".parquet")
NOTE_INTERVAL_S: Final = 1.0
ROW_GROUP: Final = 1024


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to which data: enough to do it again."""

    name: str
    settings: Mapping[str, Any]
    """Plain data, seeds included."""
    inputs: Sequence[Path] = ()

    def fingerprint(self) -> str:
        """Changes with the settings and with the inputs (by name, size and time of change)."""
        seen = [
            [file.name, file.stat().st_size, file.stat().st_mtime_ns] for path in self.inputs for file in files_of(path)
        ]
        plain = json.dumps([self.name, self.settings, seen], sort_keys=True, ensure_ascii=False, default=str)
        return hashlib.sha256(plain.encode()).hexdigest()


class Output:
    """One data file while it is written.

    with Output(path, recipe) as out:
        for position, item in enumerate(items):
            if position >= out.position:
                out.write(record)
                out.advance(position + 1, state)
        manifest = out.finish(report)
    """

    def __init__(self, path: Path, recipe: Recipe, *, resume: bool = True) -> None:
        """Raises `Invalid` where something is in the way: a finished file, or an unfinished run of another recipe."""
        _check(path)
        self.path, self.recipe = path, recipe
        self._part = path.with_name(f".{path.name}.part")
        self._note = path.with_name(f".{path.name}.note")
        self._fingerprint = recipe.fingerprint()
        self.position = 0
        """How much of the input an earlier run has done."""
        self.state: dict[str, Any] = {}
        """What that run wanted remembered."""
        self.num_records = 0
        self._offset = 0
        self._noted_s = time.monotonic()
        self._found = self._read_note(resume)
        self._stack = ExitStack()
        self._file: IO[bytes]
        self._manifest: dict[str, Any]
        self._made: Path

    def __enter__(self) -> Output:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._stack.enter_context(self._part.open("r+b" if self._found else "w+b"))
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stack.close()
            raise Invalid(f"another process is writing '{self.path}'", param="out", hint="wait for it") from None
        if self._found:
            self.position, self.num_records = self._found["position"], self._found["num_records"]
            self._offset, self.state = self._found["offset"], self._found["state"]
            self._file.truncate(self._offset)
            self._file.seek(self._offset)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, record: Record) -> None:
        """Add a record."""
        line = record.line()
        self._file.write(line)
        self._offset += len(line)
        self.num_records += 1

    def advance(self, position: int, state: Mapping[str, Any]) -> None:
        """All of the input before `position` is done. Noted when the last note is a second old."""
        if time.monotonic() - self._noted_s >= NOTE_INTERVAL_S:
            self.note(position, state)

    def note(self, position: int, state: Mapping[str, Any]) -> None:
        """As `advance`, at once."""
        self._file.flush()
        os.fsync(self._file.fileno())
        note = {
            "fingerprint": self._fingerprint, "position": position, "offset": self._offset,
            "num_records": self.num_records, "state": state,
        }  # fmt: skip
        _replace(self._note, json.dumps(note, ensure_ascii=False))
        self._noted_s = time.monotonic()

    def written(self) -> Iterator[Record]:
        """What is written so far, in order."""
        self._file.flush()
        yield from records_of_lines(self._part)

    def line_at(self, offset: int) -> Record:
        """The record whose line begins at `offset`."""
        self._file.flush()
        with self._part.open("rb") as lines:
            lines.seek(offset)
            return read_record(json.loads(lines.readline()))

    @property
    def offset(self) -> int:
        """Where the next record's line begins."""
        return self._offset

    def finish(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """Put the file and its manifest in place; returns the manifest.

        Raises:
            Invalid, MissingExtra: as `prepare`.
        """
        manifest = self.prepare(report)
        self.place()
        return manifest

    def prepare(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """Make everything ready for `place`, which cannot fail any more; returns the manifest.

        Raises:
            Invalid: no record is left.
            MissingExtra: Parquet was asked for, and pyarrow is not installed.
        """
        if not self.num_records:
            dropped = ", ".join(f"{reason}: {found['count']}" for reason, found in report.get("dropped", {}).items())
            raise Invalid(
                f"a data set holds one record or more, but nothing is left for '{self.path}'",
                param="out",
                hint=f"dropped were {dropped}" if dropped else "is the input empty, or all on the other side?",
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        data_sha256 = _sha256(self._part)
        made = self._part
        if self.path.suffix == ".parquet":
            made = self.path.with_name(f".{self.path.name}.whole")
            write_parquet(made, records_of_lines(self._part))
        manifest = {
            "schema": SCHEMA,
            "recipe": self.recipe.name,
            "settings": dict(self.recipe.settings),
            "inputs": [_input(file) for path in self.recipe.inputs for file in files_of(path)],
            "num_records": self.num_records,
            "num_bytes": made.stat().st_size,
            "data_sha256": data_sha256,
            "report": dict(report),
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._manifest, self._made = manifest, made
        return manifest

    def place(self) -> None:
        """Rename what `prepare` made to its name."""
        text = json.dumps(self._manifest, ensure_ascii=False, indent=2, default=str) + "\n"
        _replace(manifest_path(self.path), text)
        os.replace(self._made, self.path)
        self._note.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)

    def _read_note(self, resume: bool) -> dict[str, Any] | None:
        if not resume or not self._note.is_file() or not self._part.is_file():
            return None
        try:
            found: dict[str, Any] = json.loads(self._note.read_text("utf-8"))
            fits = found["fingerprint"] == self._fingerprint
            whole = self._part.stat().st_size >= found["offset"]
        except (ValueError, KeyError, TypeError):
            return None
        if not fits:
            raise Invalid(
                f"an unfinished run with other settings or other input stands at '{self.path}'",
                param="out", hint="run it again as it was, or start over with --restart",
            )  # fmt: skip
        return found if whole else None


def manifest_path(path: Path) -> Path:
    """Where the manifest of a data file stands."""
    return path.with_name(path.name + MANIFEST_SUFFIX)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest beside a data file; None where there is none.

    Raises:
        Invalid: what is there is no manifest.
    """
    place = manifest_path(path)
    if not place.is_file():
        return None
    try:
        found = json.loads(place.read_text("utf-8"))
        if found["schema"] == SCHEMA:
            return dict(found)
    except (ValueError, KeyError, TypeError):
        pass
    raise Invalid(f"'{place}' must be a manifest of the schema {SCHEMA}, but is not", param="data")


def data_sha256(path: Path) -> str:
    """The hash of the records of a data file, the same for JSONL and Parquet that hold the same ones."""
    from temper.refine.data.reading import records

    digest = hashlib.sha256()
    for record in records(path):
        digest.update(record.line())
    return digest.hexdigest()


def write_parquet(path: Path, records: Iterator[Record]) -> None:
    """Records as Parquet: messages as a list of structs, metadata as JSON text."""
    pyarrow = arrow()
    turn = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    schema = pyarrow.schema(
        [("messages", pyarrow.list_(turn)), ("text", pyarrow.string()), ("answer", pyarrow.string()),
         ("metadata", pyarrow.string())]
    )  # fmt: skip
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for record in records:
            row = record.to_json()
            rows.append({**row, "metadata": json.dumps(row["metadata"], ensure_ascii=False)})
            if len(rows) == ROW_GROUP:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def records_of_lines(path: Path) -> Iterator[Record]:
    """The records of a file that we wrote ourselves."""
    with path.open("rb") as lines:
        for line in lines:
            yield read_record(json.loads(line))


def _check(path: Path) -> None:
    if path.suffix not in OUTPUT_SUFFIXES:
        raise Invalid(
            f"an output is .jsonl or .parquet, but '{path.name}' ends in '{path.suffix}'", param="out", hint="rename it"
        )
    if path.exists():
        raise Invalid(
            f"a new data set needs a new name, but '{path}' is there already", param="out", hint="name another one"
        )
    if path.suffix == ".parquet":
        arrow()


def _input(file: Path) -> dict[str, Any]:
    found = {"name": file.name, "num_bytes": file.stat().st_size, "sha256": _sha256(file)}
    manifest = read_manifest(file)
    return (
        found if manifest is None else {**found, "data_sha256": manifest["data_sha256"], "recipe": manifest["recipe"]}
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
