"""The two databases that a store can live in, behind one small seam: SQLite in a file, PostgreSQL by URL.

All SQL of the house is written once, in the dialect that both understand; parameters are `?`. Each thread opens its
own `Database`. Knows nothing of what the tables mean.
"""

from __future__ import annotations

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from temper.errors import Invalid, MissingExtra, TemperError

BUSY_S = 10.0
"""How long a writer waits for another one."""

Row = dict[str, Any]


class StoreUnreachable(TemperError):
    """The store's database does not answer. What it would have decided stays as it was."""

    code = "store_unreachable"
    retryable = True


class Database(ABC):
    """One connection. Not for several threads at once."""

    @abstractmethod
    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """What a query finds, or what a statement returns.

        Raises:
            StoreUnreachable: the database does not answer.
        """

    @abstractmethod
    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows that it changed."""

    @abstractmethod
    def change_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each set of parameters."""

    @abstractmethod
    def transaction(self) -> Any:
        """A context manager: all of it happens, or nothing; no other writer comes between its reads and writes."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since 1970 by the clock that all users of this database share."""

    @abstractmethod
    def create(self, tables: Sequence[str]) -> None:
        """Run statements that make tables, while nobody else does. `{serial}` is a key that numbers rows by itself."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row, None where there is none."""
        found = self.rows(sql, parameters)
        return found[0] if found else None


def connect(url: str) -> Database:
    """Open `sqlite:///path/to/file` or `postgresql://user@host/name`.

    Raises:
        Invalid: another kind of URL.
        MissingExtra: PostgreSQL needs psycopg.
        StoreUnreachable: it does not answer.
    """
    if url.startswith("sqlite:///"):
        return SQLite(Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgres://")):
        return PostgreSQL(url)
    raise Invalid(
        f"a store is sqlite:///FILE or postgresql://…, but is '{url.partition('@')[2] or url}'", param="store"
    )


class SQLite(Database):
    """A file on this machine. Readers never wait; writers wait for one another."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, BUSY_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error as error:
            raise StoreUnreachable(f"{path} cannot be opened as a store: {error}") from None
        self._connection.row_factory = sqlite3.Row

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """See the seam."""
        return [dict(row) for row in self._run(sql, parameters).fetchall()]

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """See the seam."""
        return self._run(sql, parameters).rowcount

    def change_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """See the seam."""
        try:
            self._connection.executemany(sql, parameters)
        except sqlite3.OperationalError as error:
            raise StoreUnreachable(f"the store does not answer: {error}") from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See the seam; takes the write lock at once, so that what is read stays true."""
        self._run("BEGIN IMMEDIATE", ())
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._run("COMMIT", ())

    def now(self) -> float:
        """This machine's clock: nobody else opens the file."""
        return time.time()

    def create(self, tables: Sequence[str]) -> None:
        """See the seam."""
        with self.transaction():
            for table in tables:
                self._run(table.replace("{serial}", "INTEGER PRIMARY KEY AUTOINCREMENT"), ())

    def close(self) -> None:
        """See the seam."""
        self._connection.close()

    def _run(self, sql: str, parameters: Sequence[Any]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, parameters)
        except sqlite3.OperationalError as error:
            raise StoreUnreachable(f"the store does not answer: {error}") from None


class PostgreSQL(Database):
    """A server that several machines share. A lost connection is opened again at the next use."""

    CREATING = 7_314_001
    """Advisory lock: two processes that make the same table at once would fail."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise MissingExtra(
                "a store in PostgreSQL needs psycopg", hint="pip install 'temper-llm[postgres]'"
            ) from None
        self._psycopg = psycopg
        self._url = url
        self._inside = False
        self._connection = self._connect()

    def _connect(self) -> Any:
        from psycopg.rows import dict_row

        try:
            return self._psycopg.connect(self._url, autocommit=True, row_factory=dict_row, connect_timeout=int(BUSY_S))
        except self._psycopg.OperationalError as error:
            raise StoreUnreachable(f"the store does not answer: {' '.join(str(error).split())}") from None

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """See the seam."""
        cursor = self._run(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """See the seam."""
        return int(self._run(sql, parameters).rowcount)

    def change_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """See the seam."""
        if parameters:
            self._guarded(lambda: self._connection.cursor().executemany(_own_marks(sql), parameters))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See the seam. Serialized by one advisory lock: changes are few and short, and nothing need be tried again."""
        self._run("SELECT 1", ())  # a connection that was lost is found here, outside
        with self._connection.transaction():
            self._inside = True
            try:
                self._run("SELECT pg_advisory_xact_lock(?)", (self.CREATING,))
                yield
            finally:
                self._inside = False

    def now(self) -> float:
        """The database's clock, whatever the clocks of its users say."""
        return float(self.rows("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")[0]["now"])

    def create(self, tables: Sequence[str]) -> None:
        """See the seam."""
        with self.transaction():
            for table in tables:
                self._run(table.replace("{serial}", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"), ())

    def close(self) -> None:
        """See the seam."""
        self._connection.close()

    def _run(self, sql: str, parameters: Sequence[Any]) -> Any:
        return self._guarded(lambda: self._connection.execute(_own_marks(sql), parameters))

    def _guarded(self, work: Any) -> Any:
        if self._connection.closed and not self._inside:
            self._connection = self._connect()
        try:
            return work()
        except self._psycopg.OperationalError as error:
            if not self._inside and self._connection.broken:
                self._connection = self._connect()
                return work()
            raise StoreUnreachable(f"the store does not answer: {' '.join(str(error).split())}") from None


def _own_marks(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")
