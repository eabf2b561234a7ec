"""What was measured before: benchmarks in one SQLite file, by what was measured, under which load, on which machine.

A session is one `temper bench`. It keeps the whole run documents, so that a later question needs no new measurement.
Judges nothing: `regression` does.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from temper.errors import Invalid

SCHEMA_VERSION = 1
BUSY_S = 10.0
KEPT_OUT = ("distribution",)
"""Of a run: for drawing alone, and large."""

_TABLES = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, recorded_at REAL NOT NULL, subject TEXT NOT NULL, version TEXT, workload_hash TEXT NOT NULL,
    machine_hash TEXT NOT NULL, workload TEXT NOT NULL, machine TEXT NOT NULL, temper TEXT NOT NULL, runs TEXT NOT NULL
);
CREATE INDEX sessions_by_key ON sessions (workload_hash, subject, machine_hash);
"""


@dataclass(frozen=True, slots=True)
class Session:
    """One benchmark."""

    subject: str
    """What was measured, as it was named: a profile, a URL, engines side by side."""
    version: str | None
    """The profile's version id; None for what has no profile that we know."""
    workload: Mapping[str, Any]
    machine: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    """As `bench` writes them."""
    temper: str
    """The version of Temper that measured."""
    recorded_at: float = field(default_factory=time.time)
    id: int | None = None
    """None until it is recorded."""

    @property
    def machine_hash(self) -> str:
        """The same for machines that should be equally fast."""
        kept = ("cpu", "arch", "cores", "usable_cores", "isa")
        memory_gib = round(self.machine.get("memory_limit_bytes", 0) / 2**30)
        return _hash({**{name: self.machine.get(name) for name in kept}, "memory_gib": memory_gib})

    @property
    def workload_hash(self) -> str:
        """The same for the same kind of requests; how many at once is in each run, and seeds change no figure."""
        kept = {name: value for name, value in self.workload.items() if name not in ("seed", "arrivals", "name", "slo")}
        arrivals = self.workload.get("arrivals", {})
        return _hash({**kept, "recorded": arrivals if arrivals.get("kind") == "recorded" else None})


def _hash(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


class History:
    """The sessions that were recorded. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the file, made if it is missing.

        Raises:
            Invalid: it was written by a newer Temper, or is no history.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, path: Path) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            with closing(self._connection.execute("PRAGMA user_version")) as cursor:
                version = int(cursor.fetchone()[0])
            if version == 0:
                for statement in _TABLES.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise Invalid(f"{path} is no history of benchmarks: {error}", param="home", hint="move it away") from None
        if version > SCHEMA_VERSION:
            raise Invalid(
                f"{path} has schema {version}, this Temper reads up to {SCHEMA_VERSION}", param="home",
                hint="update Temper, or take another --home",
            )  # fmt: skip

    def record(self, session: Session) -> int:
        """Keep a session; its number."""
        runs = [{name: value for name, value in run.items() if name not in KEPT_OUT} for run in session.runs]
        values = (
            session.recorded_at, session.subject, session.version, session.workload_hash, session.machine_hash,
            json.dumps(session.workload), json.dumps(session.machine), session.temper, json.dumps(runs),
        )  # fmt: skip
        cursor = self._connection.execute(
            "INSERT INTO sessions (recorded_at, subject, version, workload_hash, machine_hash, workload, machine,"
            " temper, runs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        return int(cursor.lastrowid or 0)

    def like(self, session: Session, limit: int = 100) -> list[Session]:
        """Recorded sessions under the same workload of the same subject or version, on any machine, newest first."""
        rows = self._connection.execute(
            "SELECT * FROM sessions WHERE workload_hash = ? AND (subject = ? OR version = ?) ORDER BY id DESC LIMIT ?",
            (session.workload_hash, session.subject, session.version, limit),
        )
        return [_session(row) for row in rows]

    def all(self, limit: int = 1000) -> list[Session]:
        """Every session, newest first."""
        return [
            _session(row)
            for row in self._connection.execute("SELECT * FROM sessions ORDER BY id DESC LIMIT ?", (limit,))
        ]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _session(row: sqlite3.Row) -> Session:
    return Session(
        subject=row["subject"],
        version=row["version"],
        workload=json.loads(row["workload"]),
        machine=json.loads(row["machine"]),
        runs=json.loads(row["runs"]),
        temper=row["temper"],
        recorded_at=row["recorded_at"],
        id=row["id"],
    )
