"""What may begin before a profile is known.

`temper serve` nearly always comes to the native engine, whose worker imports as long as its parent does before it can
load anything: they do so side by side. Importing this imports next to nothing.
"""

from __future__ import annotations

from temper.engines import NATIVE
from temper.engines.native.spawn import end_spare, prepare_spare


def prepare() -> None:
    """Spawn a worker of the native engine, which imports and waits; the first such engine takes it."""
    prepare_spare(NATIVE)


def give_up() -> None:
    """End it where nobody took it."""
    end_spare()
