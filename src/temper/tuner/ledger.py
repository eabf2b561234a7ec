"""Every study and every measurement in it, in one SQLite file: what resuming, the page and the reports read.

A measurement is written before anything is decided from it. Decisions are pure functions of measurements, so a study
that was killed is resumed by running it again from its beginning: what was measured is read here, not measured twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from temper.errors import NotFound, Rejected
from temper.tuner.evaluate import Block, Task, block

State = Literal["running", "done", "failed"]
FILE = "studies.sqlite"
"""Below the home folder."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
  id TEXT PRIMARY KEY, created_s REAL NOT NULL, plan TEXT NOT NULL, state TEXT NOT NULL, document TEXT);
CREATE TABLE IF NOT EXISTS measurements (
  study TEXT NOT NULL, key TEXT NOT NULL, at_s REAL NOT NULL, task TEXT NOT NULL, block TEXT NOT NULL,
  PRIMARY KEY (study, key));
CREATE TABLE IF NOT EXISTS trials (
  study TEXT NOT NULL, number INTEGER NOT NULL, trial TEXT NOT NULL, PRIMARY KEY (study, number));
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One study as it stands in the ledger."""

    id: str
    created_s: float
    """Unix time."""
    state: State
    plan: Mapping[str, Any]
    """All that is needed to run it again: profiles, workload, goal, budget, seed."""
    document: Mapping[str, Any] | None
    """Its report: the last one written while it runs, the whole one when done."""


class Ledger:
    """The file, or memory with `path=None`. One writer a study at a time; any number of readers."""

    def __init__(self, path: Path | None, *, create: bool = True) -> None:
        self._path = path
        if path is not None and create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif path is not None and not path.exists():
            raise NotFound("there are no studies yet", param="study", hint="temper tune WORKLOAD begins one")
        self._db = sqlite3.connect(":memory:" if path is None else path, timeout=30.0, check_same_thread=False)
        if path is not None:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
        if create:
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- studies -----------------------------------------------------------------------------------------

    def begin(self, id: str, plan: Mapping[str, Any]) -> None:
        """Write a new study down."""
        with self._db:
            self._db.execute(
                "INSERT INTO studies VALUES (?, ?, ?, 'running', NULL)", (id, time.time(), json.dumps(plan))
            )

    def find(self, name: str) -> Entry:
        """The study with this id, or an unambiguous beginning of it; `last` is the newest.

        Raises:
            NotFound: none, or several.
        """
        entries = self.studies()
        if name == "last" and entries:
            return entries[0]
        found = [entry for entry in entries if entry.id == name] or [e for e in entries if e.id.startswith(name)]
        if len(found) != 1:
            there = ", ".join(entry.id for entry in entries[:8]) or "none yet"
            what = "several studies begin" if found else "no study begins"
            raise NotFound(f"{what} with '{name}'", param="study", hint=f"there are: {there}")
        return found[0]

    def studies(self) -> list[Entry]:
        """All of them, newest first."""
        rows = self._db.execute(
            "SELECT id, created_s, state, plan, document FROM studies ORDER BY created_s DESC, rowid DESC"
        )
        return [
            Entry(id, created, state, json.loads(plan), None if document is None else json.loads(document))
            for id, created, state, plan, document in rows
        ]

    def write(self, id: str, document: Mapping[str, Any], state: State) -> None:
        """Keep a study's report."""
        with self._db:
            self._db.execute(
                "UPDATE studies SET document = ?, state = ? WHERE id = ?", (json.dumps(document), state, id)
            )

    @contextmanager
    def running(self, id: str) -> Iterator[None]:
        """Be the one process that runs this study.

        Raises:
            Rejected: another one does.
        """
        if self._path is None:
            yield
            return
        handle = os.open(self._path.with_name(f"study-{id}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Rejected(
                    f"another process runs the study {id} right now", hint="wait for it, or end it"
                ) from None
            yield
        finally:
            os.close(handle)

    # -- measurements and trials -------------------------------------------------------------------------

    def measurements(self, id: str) -> dict[str, Block]:
        """Everything measured in a study, by key, oldest first."""
        rows = self._db.execute("SELECT key, block FROM measurements WHERE study = ? ORDER BY rowid", (id,))
        return {key: block(json.loads(text)) for key, text in rows}

    def record(self, id: str, task: Task, found: Block) -> None:
        """Write a measurement down; it is on the disk when this returns.

        Raises:
            sqlite3.IntegrityError: this key was measured already: a bug in whoever asks.
        """
        asked = {"point": task.point.key, "slot": task.slot, "seed": task.seed, "kind": task.kind, "count": task.count}
        with self._db:
            self._db.execute(
                "INSERT INTO measurements VALUES (?, ?, ?, ?, ?)",
                (id, task.key, time.time(), json.dumps(asked), json.dumps(found.document())),
            )

    def forget_failures(self, id: str) -> None:
        """Let a study that its incumbent ended try again: forget where the incumbent could not be measured."""
        with self._db:
            self._db.execute(
                "DELETE FROM measurements WHERE study = ? AND json_extract(task, '$.slot') = 'incumbent' "
                "AND json_extract(block, '$.trouble') IS NOT NULL",
                (id,),
            )

    def put_trial(self, id: str, number: int, trial: Mapping[str, Any]) -> None:
        """Write a trial's summary, in place of an earlier one."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO trials VALUES (?, ?, ?)", (id, number, json.dumps(trial)))

    def trials(self, id: str) -> list[dict[str, Any]]:
        """Summaries of a study's trials in their order."""
        rows = self._db.execute("SELECT trial FROM trials WHERE study = ? ORDER BY number", (id,))
        return [json.loads(text) for (text,) in rows]
