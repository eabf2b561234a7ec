"""The step thread: does what is posted to it, then steps for as long as there is work, then sleeps.

It knows neither models nor requests. What it is given to run, it runs alone: that is why the
scheduler, the cache and the executor need no locks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable


class Stepper:
    """One thread around `step`, which returns whether there is more to do."""

    def __init__(self, step: Callable[[], bool], on_failure: Callable[[Exception], None]) -> None:
        self._step = step
        self._on_failure = on_failure
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._halting = False
        self._busy_since: float | None = None
        self.last_step: float | None = None
        """When the last step ended, on the monotonic clock."""
        self._thread = threading.Thread(target=self._run, name="temper-step", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def post(self, call: Callable[[], None]) -> None:
        """Have `call` run on the step thread, between two steps. From any thread."""
        with self._wake:
            self._inbox.append(call)
            self._wake.notify()

    def finish(self) -> None:
        """End the thread once its inbox is empty, after the step that it is in."""
        self.post(self._halt)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; False when it did not come in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _halt(self) -> None:
        self._halting = True

    def stuck_for_s(self) -> float:
        """Seconds since the present step began, when there is one; 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def _run(self) -> None:
        more = False
        while True:
            with self._wake:
                while not (more or self._inbox):
                    self._wake.wait()
            self._busy_since = time.monotonic()
            try:
                while self._inbox:
                    self._inbox.popleft()()
                if self._halting:
                    return
                more = self._step()
            except Exception as error:
                self._on_failure(error)
                more = True
            self._busy_since = None
            self.last_step = time.monotonic()
