"""The list of pages that the navigation shows.

Only pages that exist are shown: a page appears here in the same change that makes it work.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """One entry of the navigation."""

    name: str
    """A stable word; the template of the page marks itself current by it."""
    title: str
    """What the person reads."""
    path: str


PLAYGROUND = Page("playground", "Playground", "/")

STUDIES = Page("studies", "Studies", "/studies")

ROLLOUTS = Page("rollouts", "Rollouts", "/rollouts")

PAGES: tuple[Page, ...] = (PLAYGROUND, STUDIES, ROLLOUTS)
