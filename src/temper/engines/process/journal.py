"""What a server writes: the last lines in memory, for messages; everything in a file, for people.

Bytes may be anything, come in any pieces and never end a line: lines are cut, files turn over, nothing grows.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from pathlib import Path
from typing import BinaryIO

KEPT_LINES = 200
LONGEST_LINE = 2000
FILE_BYTES = 16 << 20
"""A file that has grown so long becomes `.old`, in place of the one before."""
KEPT_FILES = 20

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ENDS = re.compile(rb"[\r\n]+")


class Journal:
    """One server's output."""

    def __init__(self, path: Path) -> None:
        """`path` is made with its folder when something is written."""
        self.path = path
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = b""
        self._file: BinaryIO | None = None
        self._written = 0
        self._broken = False

    def write(self, data: bytes) -> list[str]:
        """Take the next piece; returns the lines that it completes."""
        self._to_file(data)
        *complete, self._rest = _ENDS.split(self._rest + data)
        if len(self._rest) > LONGEST_LINE:
            complete.append(self._rest)
            self._rest = b""
        lines = [text for raw in complete if (text := _readable(raw))]
        self._lines.extend(lines)
        return lines

    def note(self, text: str) -> None:
        """A line of our own."""
        self.write(f"[temper] {text}\n".encode())

    def last(self, count: int = 10) -> list[str]:
        """The last lines, one that is not complete included."""
        rest = _readable(self._rest)
        return [*self._lines, *([rest] if rest else [])][-count:]

    def close(self) -> None:
        """Close the file; another piece opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _to_file(self, data: bytes) -> None:
        if self._broken:
            return
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _prune(self.path.parent)
                self._file = self.path.open("ab", buffering=0)
                self._written = self._file.tell()
            if self._written + len(data) > FILE_BYTES and self._written:
                self._file.close()
                self.path.replace(self.path.with_suffix(".old"))
                self._file = self.path.open("wb", buffering=0)
                self._written = 0
            self._file.write(data)
            self._written += len(data)
        except OSError:
            self._broken = True  # a full disk must not end the server; the lines in memory go on


def _readable(raw: bytes) -> str:
    text = _ANSI.sub("", raw[:LONGEST_LINE].decode("utf-8", "replace"))
    return "".join(letter if letter.isprintable() or letter == "\t" else "�" for letter in text).rstrip()


def _prune(folder: Path) -> None:
    """Keep the newest files of a folder of logs."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)
        for file in files[: max(0, len(files) - KEPT_FILES + 1)]:
            file.unlink()
            file.with_suffix(".old").unlink(missing_ok=True)
