"""How long work in refine says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str, int, int], None]
"""Told what is going on, how much is done, and how much there is in all (0 where unknown)."""
