"""The store: the only channel between servers, controllers and people.

It holds versions, deployments, rollouts, what became of requests, and who may act. Every change that must not be
half done is one transaction. Knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from temper.errors import TemperError
from temper.fleet.database import Database, connect
from temper.fleet.tables import TABLES

FILE = "fleet.db"
"""The store's file below the home folder, where no URL names another."""


class LeaseLost(TemperError):
    """Somebody else acts now. What was about to be written was not."""

    code = "lease_lost"


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of a deployment's history."""

    number: int
    at: float
    """Seconds since 1970."""
    kind: str
    text: str
    """For people, a whole sentence."""
    rollout: str | None
    version: str | None


def url_of(home: Path) -> str:
    """Where the store of a home folder is when nothing else is said."""
    return f"sqlite:///{home / FILE}"


class Store:
    """One connection to a store; open one for each thread."""

    def __init__(self, url: str) -> None:
        """Open it, making the tables where they are missing.

        Raises:
            Invalid, MissingExtra, StoreUnreachable: as `database.connect`.
        """
        from temper.fleet.deployments import Deployments
        from temper.fleet.journal import Requests
        from temper.fleet.rollouts import Rollouts
        from temper.fleet.turns import Turns
        from temper.fleet.versions import Versions

        self.url = url
        self.database: Database = connect(url)
        self.database.create(TABLES)
        self.versions = Versions(self)
        self.deployments = Deployments(self)
        self.rollouts = Rollouts(self)
        self.requests = Requests(self)
        self.turns = Turns(self)

    def close(self) -> None:
        """Give the connection back."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- what happened -----------------------------------------------------------------------------------

    def tell(
        self, deployment: str, kind: str, text: str, *, rollout: str | None = None, version: str | None = None
    ) -> None:
        """Add a line to the history; inside a transaction, it is there only if the change is."""
        self.database.change(
            "INSERT INTO events (deployment, rollout, version, kind, text, at) VALUES (?, ?, ?, ?, ?, ?)",
            (deployment, rollout, version, kind, text, self.database.now()),
        )

    def history(self, deployment: str | None = None, *, rollout: str | None = None, most: int = 200) -> list[Happening]:
        """The last lines, oldest first."""
        found = self.database.rows(
            "SELECT number, at, kind, text, rollout, version FROM events "
            "WHERE (CAST(? AS TEXT) IS NULL OR deployment = ?) AND (CAST(? AS TEXT) IS NULL OR rollout = ?) "
            "ORDER BY number DESC LIMIT ?",
            (deployment, deployment, rollout, rollout, most),
        )
        return [Happening(**row) for row in reversed(found)]

    # -- who acts ----------------------------------------------------------------------------------------

    def take_lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew the right to act for `ttl_s` seconds; False while somebody else has it."""
        with self.database.transaction():
            now = self.database.now()
            row = self.database.row("SELECT holder, expires_at FROM leases WHERE name = ?", (name,))
            if row is not None and row["holder"] != holder and row["expires_at"] > now:
                return False
            self.database.change(
                "INSERT INTO leases (name, holder, expires_at) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at",
                (name, holder, now + ttl_s),
            )
            return True

    def drop_lease(self, name: str, holder: str) -> None:
        """Give the right back, so that nobody waits for it to expire."""
        self.database.change("DELETE FROM leases WHERE name = ? AND holder = ?", (name, holder))

    def lease_holder(self, name: str) -> str | None:
        """Who may act now."""
        row = self.database.row("SELECT holder, expires_at FROM leases WHERE name = ?", (name,))
        return row["holder"] if row is not None and row["expires_at"] > self.database.now() else None

    @contextmanager
    def acting(self, name: str, holder: str) -> Iterator[None]:
        """A transaction that only the holder of a lease can complete.

        Raises:
            LeaseLost: somebody else has it, or it expired.
        """
        with self.database.transaction():
            if self.lease_holder(name) != holder:
                raise LeaseLost(f"the lease '{name}' is not held by {holder} any more")
            yield
