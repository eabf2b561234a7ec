"""Versions: stored profiles with where they came from, where they are, and what speaks for them.

A version's id is the hash of its profile's canonical JSON, so the same deployment is the same version wherever and by
whomever it was made. Its stage is not stored but follows from what points at it: a deployment's production, a
running rollout, or its retirement; so no crash can leave two of them at odds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from temper.errors import Invalid, NotFound
from temper.profile import store as profiles
from temper.profile.schema import Profile

if TYPE_CHECKING:
    from temper.fleet.store import Store

Stage = Literal["candidate", "canary", "production", "retired"]
Origin = Literal["person", "study", "recipe"]

SHORT = 12
"""Digits of an id that people are shown; any beginning of at least `LEAST` that is unique names it too."""
LEAST = 6

_SELECT = """SELECT versions.*, CASE
    WHEN EXISTS (SELECT 1 FROM deployments WHERE production = versions.id) THEN 'production'
    WHEN EXISTS (SELECT 1 FROM rollouts WHERE candidate = versions.id AND state = 'running') THEN 'canary'
    WHEN retired_at IS NOT NULL THEN 'retired' ELSE 'candidate' END AS stage FROM versions"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One judgement about a version."""

    kind: str
    """`rollout`, `study`, `ab`, `person`, …"""
    verdict: str
    """`pass`, `fail` or `inconclusive`."""
    document: Mapping[str, Any]
    """What the judge wrote."""
    at: float


@dataclass(frozen=True, slots=True)
class Version:
    """A stored profile."""

    id: str
    """64 hexadecimal digits."""
    profile: Profile
    manifests: Mapping[str, str]
    """The hash of each checkpoint's manifest, by the name that the profile gives it."""
    parent: str | None
    """The version it was made from."""
    origin: Origin
    source: str
    """Which study or recipe, or who."""
    note: str
    created_at: float
    stage: Stage

    @property
    def short(self) -> str:
        """The beginning of the id, for people."""
        return self.id[:SHORT]

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            **{name: getattr(self, name) for name in ("id", "stage", "parent", "origin", "source", "note")},
            "created_at": self.created_at,
            "manifests": dict(self.manifests),
            "profile": self.profile.model_dump(mode="json"),
        }


class Versions:
    """The versions of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database

    def add(
        self,
        profile: Profile,
        manifests: Mapping[str, str],
        *,
        origin: Origin = "person",
        source: str = "",
        parent: str | None = None,
        note: str = "",
    ) -> Version:
        """Store a profile, or find it stored: its lineage then stays what it was.

        Raises:
            ProfileError: the hash of a checkpoint's manifest is missing.
            NotFound: the parent is not here.
        """
        id = profiles.version_id(profile, manifests)
        if parent is not None:
            parent = self.find(parent).id
        self._database.change(
            "INSERT INTO versions (id, profile, manifests, parent, origin, source, note, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (
                id,
                profile.model_dump_json(),
                json.dumps(dict(manifests), sort_keys=True),
                parent if parent != id else None,
                origin,
                source,
                note,
                self._database.now(),
            ),
        )
        return self.find(id)

    def find(self, name: str) -> Version:
        """The version with this id, or the only one whose id begins so.

        Raises:
            NotFound: none does.
            Invalid: several do.
        """
        found = self._matching(name)
        if not found:
            raise NotFound(f"no version is called '{name}'", param="version", hint="temper versions list")
        if len(found) > 1:
            ids = ", ".join(version.short for version in found)
            raise Invalid(f"'{name}' could be {ids}", param="version", hint="write more digits")
        return found[0]

    def get(self, name: str) -> Version | None:
        """The version called `name`; None where there is none, or `name` cannot be an id."""
        found = self._matching(name)
        return found[0] if len(found) == 1 else None

    def _matching(self, name: str) -> list[Version]:
        if len(name) < LEAST or set(name) - set("0123456789abcdef"):
            return []
        rows = self._database.rows(f"{_SELECT} WHERE id LIKE ? ORDER BY created_at", (name + "%",))
        return [_version(row) for row in rows]

    def all(self, stage: Stage | None = None) -> list[Version]:
        """Every version, newest first."""
        rows = self._database.rows(f"{_SELECT} ORDER BY created_at DESC, id")
        return [version for row in rows if (version := _version(row)) and stage in (None, version.stage)]

    def lineage(self, name: str) -> list[Version]:
        """A version, what it was made from, what that was made from, and so on."""
        line = [self.find(name)]
        while (parent := line[-1].parent) is not None and parent not in {version.id for version in line}:
            line.append(self.find(parent))
        return line

    # -- what speaks for it ------------------------------------------------------------------------------

    def witness(self, name: str, kind: str, verdict: str, document: Mapping[str, Any]) -> None:
        """Add evidence."""
        self._database.change(
            "INSERT INTO evidence (version, kind, verdict, document, at) VALUES (?, ?, ?, ?, ?)",
            (self.find(name).id, kind, verdict, json.dumps(document), self._database.now()),
        )

    def evidence(self, name: str) -> list[Evidence]:
        """All of it, oldest first."""
        rows = self._database.rows(
            "SELECT kind, verdict, document, at FROM evidence WHERE version = ? ORDER BY number", (self.find(name).id,)
        )
        return [Evidence(row["kind"], row["verdict"], json.loads(row["document"]), row["at"]) for row in rows]

    # -- stages ------------------------------------------------------------------------------------------

    def retire(self, name: str) -> Version:
        """Take a version out of choice.

        Raises:
            Invalid: it is serving, or on its way to.
        """
        with self._database.transaction():
            version = self.find(name)
            if version.stage in ("production", "canary"):
                raise Invalid(
                    f"version {version.short} is in {version.stage}; only what serves nobody can be retired",
                    param="version",
                    hint="promote another one, or abort its rollout, first",
                )
            self.mark_retired(version.id)
        return self.find(version.id)

    def mark_retired(self, id: str) -> None:
        """Retired from now on, unless something points at it."""
        self._database.change(
            "UPDATE versions SET retired_at = ? WHERE id = ? AND retired_at IS NULL", (self._database.now(), id)
        )

    def mark_chosen(self, id: str) -> None:
        """No longer retired."""
        self._database.change("UPDATE versions SET retired_at = NULL WHERE id = ?", (id,))


def _version(row: Mapping[str, Any]) -> Version:
    return Version(
        id=row["id"],
        profile=profiles.validate(json.loads(row["profile"]), f"version {row['id'][:SHORT]}"),
        manifests=json.loads(row["manifests"]),
        parent=row["parent"],
        origin=row["origin"],
        source=row["source"],
        note=row["note"],
        created_at=row["created_at"],
        stage=row["stage"],
    )
