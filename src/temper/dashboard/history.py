"""The last minutes of live figures, so that a page just opened already has something to draw.

It takes a snapshot a second and keeps a fixed number of them. It knows nothing of where the figures come
from, and nothing of what they mean.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

log = logging.getLogger(__name__)

KEEP_SAMPLES = 300
INTERVAL_S = 1.0


class Figures(Protocol):
    """What the dashboard needs of the server's live figures."""

    def snapshot(self) -> Mapping[str, Any]:
        """The figures of this moment, ready for JSON; see `temper.telemetry.LiveFigures.snapshot`."""


class History:
    """A ring of samples, each a snapshot and its `sequence`, which grows by one."""

    def __init__(
        self,
        figures: Figures,
        *,
        keep: int = KEEP_SAMPLES,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._figures = figures
        self._samples: deque[dict[str, Any]] = deque(maxlen=keep)
        self._sequence = itertools.count(1)
        self.keep = keep
        self.interval_s = interval_s

    def take(self) -> None:
        """Add one sample now."""
        figures = self._figures.snapshot()
        self._samples.append({"sequence": next(self._sequence), **figures})

    def after(self, sequence: int) -> list[dict[str, Any]]:
        """Samples newer than `sequence`, oldest first.

        A `sequence` from before a restart of the server is larger than any we have: then all are new.
        """
        if self._samples and sequence > self._samples[-1]["sequence"]:
            sequence = 0
        return [sample for sample in self._samples if sample["sequence"] > sequence]

    async def run(self) -> None:
        """Sample until cancelled. A snapshot that fails leaves a gap and a line in the log, no more."""
        while True:
            try:
                self.take()
            except Exception:  # whatever it is, charts that stop for ever would be worse
                log.exception("no live figures this second")
            await asyncio.sleep(self.interval_s)
