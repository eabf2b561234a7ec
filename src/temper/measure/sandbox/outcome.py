"""What became of a program that ran in the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from temper.measure.sandbox.policy import Isolation

Status = Literal["passed", "failed", "unfinished", "timeout", "memory", "output", "disk"]
"""`unfinished`: exit code 0 without coming to the end. The last four name the limit that was reached."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended."""

    status: Status
    exit_code: int
    """Negative: the signal that ended it."""
    stdout: str
    stderr: str
    wall_s: float
    cpu_s: float
    max_rss_bytes: int
    isolation: Isolation

    @property
    def passed(self) -> bool:
        """Whether the program came to its own end without an error."""
        return self.status == "passed"
