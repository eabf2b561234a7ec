"""What begins while nothing is decided yet: the imports of a worker that `serve` will most likely need."""

from __future__ import annotations

from temper.engines import ahead


def begin() -> None:
    """Start a process that imports what our own engine needs. `serve` takes it, or ends it where none is asked for."""
    ahead.prepare()
