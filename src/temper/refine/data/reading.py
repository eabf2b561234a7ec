"""Records out of files, one at a time: JSONL, JSON, Parquet, plain text, or a folder of these.

What cannot be read comes back as the error it is, with file and line, so that the caller decides whether one bad line
stops the work.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from temper.errors import Invalid, MissingExtra, NotFound
from temper.refine.data.record import Record, read_record

SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".parquet", ".txt")
MAX_LINE_BYTES: Final = 64 << 20
_CHUNK: Final = 1 << 16
_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class Located:
    """A record, or what is wrong with it, and where it stands."""

    found: Record | Invalid
    where: str
    """`name:line`, or `name[index]` in files without lines."""

    @property
    def record(self) -> Record:
        """The record.

        Raises:
            Invalid: it is none; the message begins with where it stands.
        """
        if isinstance(self.found, Invalid):
            raise self.error
        return self.found

    @property
    def error(self) -> Invalid:
        """What is wrong, with where it stands."""
        assert isinstance(self.found, Invalid)
        return self.error_of(self.found)

    def error_of(self, error: Invalid) -> Invalid:
        """An error about this record, with where it stands."""
        return Invalid(f"{self.where}: {error.message}", param=error.param, hint=error.hint)


def files_of(path: Path) -> list[Path]:
    """The data files that `path` names: itself, or those of a folder in the order of their names.

    Raises:
        NotFound: nothing is there.
        Invalid: it is of no kind that can be read.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not _ours(file))
        if not found:
            raise NotFound(
                f"the folder '{path}' holds no data file", param="data", hint=f"kinds: {', '.join(SUFFIXES)}"
            )
        return found
    if not path.exists():
        raise NotFound(f"there is no data file '{path}'", param="data", hint="check the path")
    if path.suffix.lower() not in SUFFIXES:
        raise Invalid(
            f"a data file is one of {', '.join(SUFFIXES)}, but '{path.name}' ends in '{path.suffix}'",
            param="data", hint="unpack or rename it",
        )  # fmt: skip
    return [path]


def read(path: Path) -> Iterator[Located]:
    """Every record below `path`, in order, in bounded memory.

    Raises:
        NotFound, Invalid: there is no such file, or it is no data file at all.
        MissingExtra: it is Parquet, and pyarrow is not installed.
    """
    for file in files_of(path):
        kind = file.suffix.lower()
        if kind == ".parquet":
            yield from _parquet(file)
        elif kind == ".json":
            yield from _json(file)
        elif kind == ".txt":
            yield _text(file)
        else:
            yield from _lines(file)


def records(path: Path) -> Iterator[Record]:
    """As `read`, and the first bad record ends it.

    Raises:
        Invalid: a record cannot be read, or there is none at all.
    """
    empty = True
    for located in read(path):
        empty = False
        yield located.record
    if empty:
        raise Invalid(f"a data file holds one record or more, but '{path}' is empty", param="data")


def arrow() -> Any:
    """The package pyarrow, with its `parquet`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(f"Parquet needs the package {error.name}", hint="pip install 'temper-llm[data]'") from error
    return pyarrow


def _ours(file: Path) -> bool:
    """Whether this stands beside a data set instead of being one."""
    return file.name.startswith(".") or file.name.endswith(".manifest.json")


def _parsed(raw: Any, where: str) -> Located:
    try:
        return Located(read_record(raw), where)
    except Invalid as error:
        return Located(error, where)


def _lines(file: Path) -> Iterator[Located]:
    with file.open("rb") as lines:
        number = 0
        while raw := lines.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{file.name}:{number}"
            if len(raw) > MAX_LINE_BYTES:
                raise Invalid(
                    f"{where}: a line has {MAX_LINE_BYTES} bytes at most, but this one has more",
                    param="data", hint="JSONL holds one record a line; is this one large JSON document (.json)?",
                )  # fmt: skip
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield _line(raw, where)


def _no_number(name: str) -> None:
    raise _NoNumber(f"{name} is no number of JSON")


class _NoNumber(ValueError):
    """NaN or infinity, which Python's reader would take."""


def _line(raw: bytes, where: str) -> Located:
    try:
        parsed = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        return Located(Invalid(f"a line must be UTF-8, but byte {error.start} is not", param="data"), where)
    except ValueError as error:
        said = str(error).partition(":")[0]
        hint = "a JSON array belongs into a .json file" if raw.lstrip()[:1] == b"[" else "one JSON object a line"
        return Located(Invalid(f"a line must be JSON: {said}", param="data", hint=hint), where)
    except RecursionError:
        return Located(Invalid("a line must be JSON of sane depth, but this one is nested too deep"), where)
    return _parsed(parsed, where)


def _json(file: Path) -> Iterator[Located]:
    """A JSON array of records, read piece by piece; or one object with the array under a single key or `data`."""
    with file.open(encoding="utf-8-sig") as text:
        try:
            head = text.read(_CHUNK).lstrip()
            if head.startswith("["):
                yield from _array(file, text, head[1:])
            elif head:
                parsed = json.loads(head + text.read(), parse_constant=_no_number)
                rows = parsed.get("data", parsed) if isinstance(parsed, dict) else parsed
                for index, row in enumerate(rows if isinstance(rows, list) else [rows]):
                    yield _parsed(row, f"{file.name}[{index}]")
        except UnicodeDecodeError as error:
            raise Invalid(f"{file.name} must be UTF-8: {error.reason} at byte {error.start}", param="data") from None
        except (ValueError, RecursionError) as error:
            raise Invalid(
                f"{file.name} must be JSON: {str(error)[:120]}", param="data", hint="one record a line is .jsonl"
            ) from None


def _array(file: Path, text: TextIO, held: str) -> Iterator[Located]:
    decoder, index = json.JSONDecoder(parse_constant=_no_number), 0
    while True:
        held = held.lstrip(" \t\r\n,") if index else held.lstrip()
        if held.startswith("]"):
            if rest := (held[1:] + text.read()).strip():
                raise ValueError(f"text after the array's end: {rest[:20]!r}")
            return
        try:
            row, end = decoder.raw_decode(held)
            whole = end < len(held)  # a number may go on in the next piece
        except _NoNumber:
            raise
        except ValueError:
            whole = False
        if whole:
            yield _parsed(row, f"{file.name}[{index}]")
            held, index = held[end:], index + 1
            continue
        more = text.read(max(_CHUNK, len(held)))
        if not more or len(held) > MAX_LINE_BYTES:
            raise ValueError(f"the array breaks off or is malformed at record {index}")
        held += more


def _parquet(file: Path) -> Iterator[Located]:
    pyarrow = arrow()
    try:
        table = pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise Invalid(f"{file.name} must be Parquet: {str(error)[:120]}", param="data") from None
    index = 0
    with table:
        try:
            for batch in table.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    yield _parsed(_unfilled(row), f"{file.name}[{index}]")
                    index += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise Invalid(f"{file.name} breaks off at row {index}: {str(error)[:120]}", param="data") from None


def _unfilled(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the columns that it leaves empty; metadata is kept as JSON text in Parquet files of our own."""
    found = {name: value for name, value in row.items() if value is not None and value == value}  # NaN is none either
    if isinstance(found.get("metadata"), str):
        with contextlib.suppress(ValueError):  # then refused with its value by whoever reads the record
            found["metadata"] = json.loads(found["metadata"])
    return found


def _text(file: Path) -> Located:
    """A whole text file is one record."""
    if file.stat().st_size > MAX_LINE_BYTES:
        raise Invalid(f"a text file is one record of {MAX_LINE_BYTES} bytes at most, but {file.name} has "
                      f"{file.stat().st_size}", param="data", hint="cut it up")  # fmt: skip
    try:
        return _parsed({"text": file.read_bytes().decode("utf-8-sig")}, f"{file.name}:1")
    except UnicodeDecodeError as error:
        return Located(Invalid(f"text must be UTF-8, but byte {error.start} is not", param="data"), f"{file.name}:1")
