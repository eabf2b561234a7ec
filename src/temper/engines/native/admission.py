"""The door: who may wait, and when to come back.

Counts requests from the moment they knock, before any work is done for them. Used by the engine and
again by the parent of a worker process, so that a rejection never waits for anything. It belongs to
the event loop's thread.
"""

from __future__ import annotations

import time

from temper.errors import QueueFull

_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
_SMOOTHING = 0.1


class Ticket:
    """One admitted request: `weight` samples, waiting or running."""

    __slots__ = ("is_running", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.is_running = False


class Admission:
    """Admits while fewer than `max_waiting` requests stand in line behind the free places."""

    def __init__(self, max_waiting: int, max_sequences: int) -> None:
        self.max_waiting = max_waiting
        self._max_sequences = max_sequences
        self._waiting: set[Ticket] = set()
        self._running: set[Ticket] = set()
        self._last_left = 0.0
        self._interval_s = 0.0

    @property
    def num_waiting(self) -> int:
        """Requests whose first step has not come."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests whose first step has come."""
        return len(self._running)

    def enter(self, weight: int) -> Ticket:
        """Admit a request of `weight` samples. Raises QueueFull."""
        free = self._max_sequences - sum(ticket.weight for ticket in self._running)
        if len(self._waiting) - max(free, 0) >= self.max_waiting:
            raise QueueFull(
                f"{len(self._waiting)} requests wait already; the limit is {self.max_waiting}",
                hint="try again later, or raise admission.max_waiting",
                retry_after_s=self.retry_after_s,
            )
        ticket = Ticket(weight)
        self._waiting.add(ticket)
        return ticket

    def started(self, ticket: Ticket) -> None:
        """The request's first step has come."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            self._running.add(ticket)
            ticket.is_running = True

    def left(self, ticket: Ticket) -> None:
        """The request is over, however. May be called twice."""
        self._waiting.discard(ticket)
        if ticket in self._running:
            self._running.remove(ticket)
            now = time.monotonic()
            if self._last_left:
                gap = min(now - self._last_left, _LONGEST_RETRY_S)
                self._interval_s += _SMOOTHING * (gap - self._interval_s) if self._interval_s else gap
            self._last_left = now

    @property
    def retry_after_s(self) -> float:
        """Until a quarter of the line has moved on, at the pace at which requests lately ended."""
        wait = self._interval_s * max(len(self._waiting) / 4, 1.0)
        return round(min(max(wait, _SHORTEST_RETRY_S), _LONGEST_RETRY_S), 1)
