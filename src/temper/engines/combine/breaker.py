"""A circuit breaker: an engine that keeps failing is left alone for a while, then tried with one request.

Closed: everything passes. Open: nothing, until its time is up. Half-open: one trial; its success closes the circuit,
its failure opens it again for twice as long. It knows neither engines nor requests; the clock is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half-open"]


class Breaker:
    """The circuit to one engine."""

    def __init__(self, failures_to_open: int, open_s: float, max_open_s: float, clock: Callable[[], float]) -> None:
        self._failures_to_open = failures_to_open
        self._open_s = open_s
        self._max_open_s = max_open_s
        self._clock = clock
        self._num_failures = 0
        self._num_openings = 0
        """Since it was last closed; each one doubles the wait."""
        self._until: float | None = None
        """When an open circuit may be tried; None while closed."""
        self._trial = False
        self.openings_total = 0

    @property
    def state(self) -> State:
        """As of now."""
        if self._until is None:
            return "closed"
        return "half-open" if self._clock() >= self._until else "open"

    @property
    def lets_pass(self) -> bool:
        """Whether a request may be sent now."""
        return self._until is None or (not self._trial and self._clock() >= self._until)

    @property
    def wait_s(self) -> float:
        """Seconds until a request may be sent."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    def sent(self) -> bool:
        """A request goes out; True when it is the trial of a half-open circuit."""
        if self._until is None:
            return False
        self._trial = True
        return True

    def succeeded(self) -> None:
        """An answer came: the circuit is closed."""
        self._num_failures = self._num_openings = 0
        self._until, self._trial = None, False

    def failed(self, *, trial: bool) -> None:
        """The engine broke. `trial`: the request was one that `sent` called so."""
        self._num_failures += 1
        if self._until is not None and not trial:
            return  # a request from before the circuit opened says nothing new
        if trial or self._num_failures >= self._failures_to_open:
            wait_s = min(self._open_s * 2.0**self._num_openings, self._max_open_s)
            self._until = self._clock() + wait_s
            self._num_openings = min(self._num_openings + 1, 32)
            self._trial = False
            self.openings_total += 1

    def undecided(self, *, trial: bool) -> None:
        """The caller left before anything was known; a trial may be made again."""
        if trial:
            self._trial = False
