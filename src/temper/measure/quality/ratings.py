"""What people think of answers: ratings, kept in SQLite, and what they come to for each model.

The last rating of a person for an answer is the one that counts. Knows nothing of HTTP.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from temper.measure.quality.intervals import wilson
from temper.measure.quality.report import CONFIDENCE

FILE = "ratings.sqlite"
BUSY_S = 10.0
Value = Literal["good", "bad"]

_TABLE = """
CREATE TABLE IF NOT EXISTS ratings (
    answer_id TEXT NOT NULL, rater TEXT NOT NULL, model TEXT NOT NULL, version TEXT, rating TEXT NOT NULL,
    comment TEXT, messages TEXT, answer TEXT, at REAL NOT NULL, PRIMARY KEY (answer_id, rater)
)"""


@dataclass(frozen=True, slots=True)
class Rating:
    """One person's judgement of one answer."""

    answer_id: str
    model: str
    rating: Value
    rater: str = "anonymous"
    version: str | None = None
    """Of the profile that answered, where the client was told."""
    comment: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    """The conversation before the answer, where the person gave it."""
    answer: str | None = None


class Ratings:
    """The ratings in one file, which is made with the first of them. May be used from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, rating: Rating) -> None:
        """Keep a rating; it takes the place of the same person's earlier one of this answer."""
        messages = None if rating.messages is None else json.dumps(list(rating.messages), ensure_ascii=False)
        values = (rating.answer_id, rating.rater, rating.model, rating.version, rating.rating, rating.comment, messages,
                  rating.answer, time.time())  # fmt: skip
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def remove(self, answer_id: str, rater: str) -> bool:
        """Take a rating back; whether there was one."""
        with self._open() as connection:
            found = connection.execute("DELETE FROM ratings WHERE answer_id = ? AND rater = ?", (answer_id, rater))
            return found.rowcount > 0

    def all(self, model: str | None = None) -> list[dict[str, Any]]:
        """Every rating as plain data, oldest first: what later trains and tests are made of."""
        with self._open() as connection:
            found = connection.execute(
                "SELECT * FROM ratings WHERE ? IS NULL OR model = ? ORDER BY at", (model, model)
            ).fetchall()
        return [{**dict(row), "messages": json.loads(row["messages"] or "null")} for row in found]

    def summary(self) -> list[dict[str, Any]]:
        """By model and version: the share of good ratings with its interval (Wilson)."""
        with self._open() as connection:
            found = connection.execute(
                "SELECT model, version, SUM(rating = 'good') AS good, COUNT(*) AS total FROM ratings "
                "GROUP BY model, version ORDER BY model, version"
            ).fetchall()
        rows = []
        for row in found:
            interval = wilson(row["good"], row["total"], CONFIDENCE)
            rows.append(
                {
                    "model": row["model"],
                    "version": row["version"],
                    "good": row["good"],
                    "ratings": row["total"],
                    "share_good": row["good"] / row["total"],
                    "interval": [interval.low, interval.high],
                    "confidence": CONFIDENCE,
                    "better": "higher",
                }
            )
        return rows

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=BUSY_S)) as connection, connection:
            connection.row_factory = sqlite3.Row
            connection.execute(_TABLE)
            yield connection
