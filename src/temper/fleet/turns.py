"""Turns: the record of the loop, one a turn, which reads as prose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper.fleet.store import Store

QUIET = ("steady", "busy")
"""Outcomes that need not be told again every minute."""


@dataclass(slots=True)
class Turn:
    """What one turn of the loop saw, did and found."""

    deployment: str
    sentences: list[str] = field(default_factory=list)
    outcome: str = "open"
    """`open`, `steady`, `busy`, `no better`, `promoted`, `rolled_back`, `inconclusive`, `aborted` or `interrupted`."""
    figures: dict[str, Any] = field(default_factory=dict)
    number: int | None = None
    """None while it is not written down, as in a dry run."""

    def say(self, sentence: str) -> None:
        """Add to the story."""
        self.sentences.append(sentence)

    def prose(self) -> str:
        """The story so far."""
        return " ".join(self.sentences)


class Turns:
    """The turns of a store."""

    def __init__(self, store: Store) -> None:
        self._database = store.database

    def open(self, turn: Turn) -> None:
        """Write down that a turn began; turns that a dead controller left open are closed."""
        with self._database.transaction():
            self._database.change(
                "UPDATE turns SET outcome = 'interrupted', ended_at = ? WHERE deployment = ? AND outcome = 'open'",
                (self._database.now(), turn.deployment),
            )
            row = self._database.row(
                "INSERT INTO turns (deployment, started_at, outcome, document) VALUES (?, ?, 'open', '{}') "
                "RETURNING number",
                (turn.deployment, self._database.now()),
            )
            assert row is not None
            turn.number = int(row["number"])

    def keep(self, turn: Turn) -> None:
        """Write down what it says now. A quiet turn after one that ended the same takes its place."""
        if turn.number is not None:
            document = json.dumps({"sentences": turn.sentences, "figures": turn.figures})
            ended = None if turn.outcome == "open" else self._database.now()
            self._database.change(
                "UPDATE turns SET outcome = ?, document = ?, ended_at = ? WHERE number = ?",
                (turn.outcome, document, ended, turn.number),
            )
            if turn.outcome in QUIET:
                self._database.change(
                    "DELETE FROM turns WHERE outcome = ? AND number = "
                    "(SELECT MAX(number) FROM turns WHERE deployment = ? AND number < ?)",
                    (turn.outcome, turn.deployment, turn.number),
                )

    def all(self, deployment: str | None = None, *, most: int = 50) -> Sequence[Mapping[str, Any]]:
        """The last turns, newest first: `number`, `deployment`, `started_at`, `ended_at`, `outcome`, `sentences`,
        `figures`."""
        rows = self._database.rows(
            "SELECT * FROM turns WHERE (CAST(? AS TEXT) IS NULL OR deployment = ?) ORDER BY number DESC LIMIT ?",
            (deployment, deployment, most),
        )
        return [{**{k: v for k, v in row.items() if k != "document"}, **json.loads(row["document"])} for row in rows]
