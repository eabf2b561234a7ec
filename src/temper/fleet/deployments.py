"""Deployments: what their servers are to serve, and the servers that ask.

A deployment is the servers that share a name in a store. Its `base` is the version they were started with, its
`production` the version that serves now: the base itself, until something was promoted over it. A server started with
another base is a person's wish, and becomes production at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from temper.errors import Invalid, NotFound

if TYPE_CHECKING:
    from temper.fleet.store import Store

ALIVE_S = 15.0
"""A server that was not heard of for so long is gone."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What one group of servers serves."""

    name: str
    base: str
    production: str


@dataclass(frozen=True, slots=True)
class Server:
    """One process that serves a deployment."""

    session: str
    """Made anew at each start."""
    deployment: str
    url: str
    serving: str
    """The version that its control arm serves."""
    rollout: str | None
    """The rollout that it takes part in."""
    share: float
    error: str | None
    """Why it cannot do what is wanted."""
    started_at: float
    seen_at: float
    alive: bool


class Deployments:
    """The deployments of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database

    def find(self, name: str) -> Deployment:
        """The deployment called `name`.

        Raises:
            NotFound: no server ever served it with this store.
        """
        row = self._database.row("SELECT name, base, production FROM deployments WHERE name = ?", (name,))
        if row is None:
            known = ", ".join(deployment.name for deployment in self.all()) or "none yet"
            raise NotFound(f"no deployment is called '{name}'", param="deployment", hint=f"there are: {known}")
        return Deployment(**row)

    def all(self) -> list[Deployment]:
        """Every deployment, by name."""
        rows = self._database.rows("SELECT name, base, production FROM deployments ORDER BY name")
        return [Deployment(**row) for row in rows]

    def chosen(self, name: str | None = None) -> Deployment:
        """The one called `name`, or the only one whose servers are running.

        Raises:
            NotFound: none is.
            Invalid: several are.
        """
        if name is not None:
            return self.find(name)
        names = sorted({server.deployment for server in self.servers() if server.alive})
        if not names:
            raise NotFound(
                "no server is running with this store", param="deployment", hint="start one: temper serve, same --home"
            )
        if len(names) > 1:
            raise Invalid(f"several deployments are running: {', '.join(names)}", param="deployment", hint="name one")
        return self.find(names[0])

    def begin(self, name: str, base: str) -> Deployment:
        """A server starts with version `base`: serve what production is, unless this base is a new one."""
        with self._database.transaction():
            row = self._database.row("SELECT name, base, production FROM deployments WHERE name = ?", (name,))
            if row is not None and row["base"] == base:
                return Deployment(**row)
            if row is None:
                self._database.change(
                    "INSERT INTO deployments (name, base, production) VALUES (?, ?, ?)", (name, base, base)
                )
                self._store.versions.mark_chosen(base)
                self._store.tell(name, "begun", f"Serving began with version {base[:12]}.", version=base)
            else:
                self._database.change("UPDATE deployments SET base = ? WHERE name = ?", (base, name))
                self.produce(name, base, f"A server was started with version {base[:12]}: it is production now.")
            return self.find(name)

    def produce(self, name: str, version: str, why: str) -> None:
        """Make a version production, inside a transaction; what it replaces is retired, its rollouts end."""
        before = self.find(name).production
        self._store.rollouts.end_others(name, f"production changed by hand to {version[:12]}")
        self._database.change("UPDATE deployments SET production = ? WHERE name = ?", (version, name))
        self._store.versions.mark_chosen(version)
        if before != version:
            self._store.versions.mark_retired(before)
        self._store.tell(name, "produced", why, version=version)

    def reference(self, name: str) -> str | None:
        """What the loop saw when all was well, as it wrote it down."""
        row = self._database.row("SELECT reference FROM deployments WHERE name = ?", (name,))
        return None if row is None else row["reference"]

    def refer(self, name: str, reference: str | None) -> None:
        """Write down what is to be compared with from now on; None: the next thing seen."""
        self._database.change("UPDATE deployments SET reference = ? WHERE name = ?", (reference, name))

    # -- servers -----------------------------------------------------------------------------------------

    def report(
        self,
        session: str,
        deployment: str,
        url: str,
        serving: str,
        *,
        rollout: str | None = None,
        share: float = 0.0,
        error: str | None = None,
    ) -> None:
        """A server says that it lives, and what it does."""
        now = self._database.now()
        self._database.change(
            "INSERT INTO servers (session, deployment, url, serving, rollout, share, error, started_at, seen_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (session) DO UPDATE SET serving = excluded.serving, "
            "rollout = excluded.rollout, share = excluded.share, error = excluded.error, seen_at = excluded.seen_at, "
            "url = excluded.url",
            (session, deployment, url, serving, rollout, share, error, now, now),
        )

    def leave(self, session: str) -> None:
        """A server ended in peace: nothing of it is open."""
        self._database.change("UPDATE servers SET seen_at = 0 WHERE session = ?", (session,))

    def servers(self, deployment: str | None = None) -> list[Server]:
        """Every server that was ever heard of, oldest first."""
        now = self._database.now()
        rows = self._database.rows(
            "SELECT * FROM servers WHERE (CAST(? AS TEXT) IS NULL OR deployment = ?) ORDER BY started_at",
            (deployment, deployment),
        )
        return [Server(**row, alive=row["seen_at"] > now - ALIVE_S) for row in rows]
