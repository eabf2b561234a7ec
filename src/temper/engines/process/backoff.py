"""When a server that died is started again, and when no more."""

from __future__ import annotations

LONGEST_S = 60.0
STABLE_S = 300.0


class Backoff:
    """Doubling pauses, up to a limit of starts in a row. A server that lived long begins a new row."""

    def __init__(self, first_s: float, limit: int, *, longest_s: float = LONGEST_S, stable_s: float = STABLE_S) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._limit, self._stable_s = limit, stable_s
        self.count = 0
        """Starts in this row."""

    def pause_s(self, lived_s: float) -> float | None:
        """How long to wait before the next start, after a life of `lived_s` ready seconds; None: give up."""
        if lived_s >= self._stable_s:
            self.count = 0
        if self.count >= self._limit:
            return None
        self.count += 1
        # The exponent is bounded: a float has no room for 2 ** 5000.
        return float(min(self._first_s * 2.0 ** min(self.count - 1, 64), self._longest_s))
