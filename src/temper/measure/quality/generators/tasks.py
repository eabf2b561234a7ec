"""The table of tasks: which families of questions there are, and where their templates stand.

Homes are imported when they are used.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from temper.errors import NotFound
from temper.measure.quality.generators.question import Template

_HERE = "temper.measure.quality.generators"


@dataclass(frozen=True, slots=True)
class Task:
    """One family of questions."""

    about: str
    home: str
    """The module below this package."""
    table: str = "TEMPLATES"
    language: str = "en"
    domain: str | None = None
    """The trade that it belongs to; None: general reasoning."""

    @property
    def templates(self) -> tuple[Template, ...]:
        """What it draws from."""
        found: tuple[Template, ...] = getattr(import_module(f"{_HERE}.{self.home}"), self.table)
        return found


TASKS: dict[str, Task] = {
    "arithmetic": Task("sums of whole numbers, percentages, fractions", "arithmetic"),
    "words": Task("word problems", "words"),
    "words_zh": Task("the same word problems in Chinese", "words", "TEMPLATES_ZH", "zh"),
    "logic": Task("orders, syllogisms, Boolean expressions, knights and liars, seats", "logic"),
    "sequences": Task("the next number of a sequence", "sequences"),
    "units": Task("conversions of units", "units"),
    "algebra": Task("expressions to expand, derive or solve; checked by computer algebra", "algebra"),
    "finance": Task("interest, margins, present value, invoices", "finance", domain="finance"),
    "medicine": Task("doses, infusions, scores, rules", "medicine", domain="medicine"),
    "manufacturing": Task("takt, yield, capability, stock", "manufacturing", domain="manufacturing"),
    "service": Task("queues, policies, refunds, messages", "service", domain="customer service"),
    "code": Task("what programs print, functions to write; run in the sandbox", "code", domain="code"),
}


def find(name: str) -> Task:
    """The task called `name`.

    Raises:
        NotFound: there is none; the hint names the nearest.
    """
    if name not in TASKS:
        raise NotFound(f"there is no task '{name}'", param="task", hint=_nearest(name, TASKS))
    return TASKS[name]


def template(name: str) -> Template:
    """The template called `name`, such as `words.boxes`.

    Raises:
        NotFound: there is none.
    """
    known = {found.name: found for found in find(name.partition(".")[0]).templates}
    if name not in known:
        raise NotFound(f"there is no template '{name}'", param="template", hint=_nearest(name, list(known)))
    return known[name]


def _nearest(name: str, known: Sequence[str] | dict[str, Task]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
