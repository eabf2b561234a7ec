"""What became of each request: written by servers, read by the controller.

The arm of a request is in the store before the request goes out, so that one which is lost with its server counts
too. A server writes in a thread of its own, many rows at once; when the store does not answer, requests go on unseen.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from temper.errors import TemperError
from temper.fleet.deployments import ALIVE_S
from temper.fleet.judge import Unit

if TYPE_CHECKING:
    from temper.fleet.store import Store

log = logging.getLogger(__name__)

Outcome = Literal["ok", "failed", "refused", "left", "lost", "overdue", "invalid"]
"""`left`: the caller went away. `lost`: its server died. `invalid`: the request was wrong, so it says nothing."""

PATIENCE_S = 1.0
"""A request waits no longer than this for its row; then it goes out unseen."""
KEEP_S = 7 * 24 * 3600.0
"""Rows are kept for so long,"""
KEEP_ROWS = 500_000
"""and no more than so many; what a rollout has judged is in its judge."""
LEAST_BREATH_S = 0.001
"""The writer leaves the store alone for as long as it held it, at least so long. SQLite's writers poll for its one lock
with pauses of up to 0.1 s: one that takes it again at once, as under a steady load, keeps the others out for good."""
PRUNE_S = 600.0
"""Between two times that a server forgets what is old."""

_INSERT = (
    "INSERT INTO requests (session, number, deployment, version, rollout, arm, share, unit, dispatched_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE = (
    "UPDATE requests SET outcome = ?, ended_at = ?, ttft_ms = ?, e2e_ms = ?, prompt_tokens = ?, output_tokens = ?, "
    "quality = ? WHERE session = ? AND number = ? AND outcome IS NULL"
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Where a request goes."""

    version: str
    rollout: str | None = None
    arm: Literal["control", "candidate"] | None = None
    share: float | None = None
    unit: str | None = None
    """A hash of the sticky key; None where each request stands for itself."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How a request ended."""

    outcome: Outcome
    ttft_ms: float | None = None
    e2e_ms: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    quality: float | None = None
    """0 to 1; None where it was not sampled."""


class Journal:
    """A server's writer. `dispatched` may be awaited from its event loop; `ended` never waits."""

    def __init__(self, url: str, session: str, deployment: str) -> None:
        self._url = url
        self._session = session
        self._deployment = deployment
        self._number = 0
        self._queue: queue.SimpleQueue[tuple[str, Sequence[Any], Future[None] | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="temper-journal", daemon=True)
        self._thread.start()

    async def dispatched(self, drawn: Drawn) -> int:
        """Write down where a request goes, in a rollout before it does; its number."""
        self._number += 1
        number = self._number
        done: Future[None] = Future()
        row = (drawn.version, drawn.rollout, drawn.arm, drawn.share, drawn.unit)
        self._queue.put((_INSERT, (self._session, number, self._deployment, *row), done))
        if drawn.rollout is None:
            return number  # nothing is compared, so nobody need wait for the store
        try:
            await asyncio.wait_for(asyncio.wrap_future(done), PATIENCE_S)
        except (TimeoutError, TemperError) as error:
            log.warning("a request goes out unseen: %s", error or "the store is slow")
        return number

    def ended(self, number: int, how: Outcomes) -> None:
        """Write down how it ended."""
        figures = (how.ttft_ms, how.e2e_ms, how.prompt_tokens, how.output_tokens, how.quality)
        self._queue.put((_UPDATE, (how.outcome, *figures, self._session, number), None))

    def close(self) -> None:
        """Write what is left, then end."""
        self._queue.put(None)
        self._thread.join(5.0)

    def _write(self) -> None:
        from temper.fleet.store import Store

        store: Store | None = None
        pruned = time.monotonic()
        open_ = True
        while open_:
            batch = [self._queue.get()]
            while not self._queue.empty() and len(batch) < 500:
                batch.append(self._queue.get())
            work = [item for item in batch if item is not None]
            open_ = len(work) == len(batch)
            began = time.monotonic()
            try:
                store = store or Store(self._url)
                with store.database.transaction():
                    now = store.database.now()
                    for sql, values, _ in work:
                        at = (*values, now) if sql is _INSERT else (values[0], now, *values[1:])
                        store.database.change(sql, at)
                error: Exception | None = None
                if time.monotonic() - pruned > PRUNE_S:
                    pruned = time.monotonic()
                    store.requests.prune()
            except Exception as found:  # whatever the store meets, requests must go on
                log.warning("%d rows were not written: %s", len(work), found)
                error = TemperError(f"the store did not take it: {found}")
            for _, _, done in work:
                if done is not None and not done.done():
                    _settle(done, error)
            time.sleep(max(LEAST_BREATH_S, time.monotonic() - began))
        if store is not None:
            store.close()


def _settle(done: Future[None], error: Exception | None) -> None:
    try:
        done.set_result(None) if error is None else done.set_exception(error)
    except Exception as cancelled:  # the request gave up waiting at this very moment
        log.debug("nobody waits for that row any more: %s", cancelled)


class Requests:
    """A controller's reader."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database

    def settle(self, rollout: str, patience_s: float) -> None:
        """Give an outcome to what will have none: requests of servers that died, and those open for too long.

        Inside a transaction.
        """
        now = self._database.now()
        self._database.change(
            "UPDATE requests SET outcome = 'lost', ended_at = ? WHERE rollout = ? AND judged = 0 "
            "AND outcome IS NULL AND session IN (SELECT session FROM servers WHERE seen_at < ?)",
            (now, rollout, now - ALIVE_S),
        )
        self._database.change(
            "UPDATE requests SET outcome = 'overdue', ended_at = ? WHERE rollout = ? AND judged = 0 AND "
            "outcome IS NULL AND dispatched_at < ?",
            (now, rollout, now - patience_s),
        )

    def fresh(self, rollout: str, most: int = 2000) -> Sequence[Mapping[str, Any]]:
        """Requests that ended and were not judged yet, in the order in which they ended."""
        return self._database.rows(
            "SELECT * FROM requests WHERE rollout = ? AND judged = 0 AND outcome IS NOT NULL "
            "ORDER BY ended_at, session, number LIMIT ?",
            (rollout, most),
        )

    def judged(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Never hand these out again; inside the transaction that keeps the judge's state."""
        self._database.change_many(
            "UPDATE requests SET judged = 1 WHERE session = ? AND number = ?",
            [(row["session"], row["number"]) for row in rows],
        )

    def unit(self, row: Mapping[str, Any]) -> Unit | None:
        """The evidence in one row; None where it is none: not its unit's first, or nobody's fault.

        Inside a transaction.
        """
        outcome: Outcome = row["outcome"]
        if outcome == "invalid" or (outcome == "left" and row["ttft_ms"] is not None):
            return None
        if row["unit"] is not None:
            first = self._database.change(
                "INSERT INTO units (rollout, unit) VALUES (?, ?) ON CONFLICT (rollout, unit) DO NOTHING",
                (row["rollout"], row["unit"]),
            )
            if not first:
                return None
        whole = outcome == "ok"
        return Unit(
            in_candidate=row["arm"] == "candidate",
            share=row["share"],
            failed=not whole,
            ttft_ms=row["ttft_ms"] if whole else None,
            e2e_ms=row["e2e_ms"] if whole else None,
            output_tokens=row["output_tokens"] if whole else None,
            wrong=None if row["quality"] is None else row["quality"] < 0.5,
        )

    def counts(self, rollout: str) -> dict[str, dict[str, int]]:
        """Requests of each arm by outcome; `open` are under way."""
        rows = self._database.rows(
            "SELECT arm, COALESCE(outcome, 'open') AS outcome, COUNT(*) AS number FROM requests WHERE rollout = ? "
            "GROUP BY arm, outcome",
            (rollout,),
        )
        found: dict[str, dict[str, int]] = {"control": {}, "candidate": {}}
        for row in rows:
            found[row["arm"]][row["outcome"]] = int(row["number"])
        return found

    def window(
        self, deployment: str, since: float, until: float | None = None, most: int = 5000
    ) -> Sequence[Mapping[str, Any]]:
        """The last ended requests of a deployment's control since a moment, oldest first."""
        rows = self._database.rows(
            "SELECT * FROM requests WHERE deployment = ? AND dispatched_at >= ? AND dispatched_at < ? "
            "AND outcome IS NOT NULL AND (arm IS NULL OR arm = 'control') ORDER BY dispatched_at DESC LIMIT ?",
            (deployment, since, self._database.now() if until is None else until, most),
        )
        return rows[::-1]

    def prune(self, keep_rows: int = KEEP_ROWS) -> None:
        """Forget what is old."""
        before = self._database.now() - KEEP_S
        last = self._database.row(
            "SELECT dispatched_at FROM requests ORDER BY dispatched_at DESC LIMIT 1 OFFSET ?", (keep_rows,)
        )
        self._database.change(
            "DELETE FROM requests WHERE dispatched_at < ? AND (rollout IS NULL OR judged = 1)",
            (before if last is None else max(before, last["dispatched_at"]),),
        )
        self._database.change("DELETE FROM servers WHERE seen_at < ?", (before,))
