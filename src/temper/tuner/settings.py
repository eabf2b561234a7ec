"""How a study is run: its budget, its seed, how often things are repeated. Plain data, kept in the ledger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from temper.errors import Invalid

_BUDGET = re.compile(
    r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>trials?|s|sec|seconds?|m|min|minutes?|h|hours?)", re.IGNORECASE
)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Budget:
    """What a study may spend: trials of its search, or seconds of measuring in all."""

    trials: int | None = None
    seconds: float | None = None

    @property
    def text(self) -> str:
        """As a person writes it."""
        if self.trials is not None:
            return f"{self.trials} trials"
        assert self.seconds is not None
        return f"{self.seconds / 60:g} min"


def parse_budget(text: str) -> Budget:
    """`40 trials`, `30min`, `2h`.

    Raises:
        Invalid: it is none of these.
    """
    found = _BUDGET.fullmatch(text.strip())
    if found is None or float(found["amount"]) <= 0:
        raise Invalid(f"a budget is written '30min', '2h' or '40 trials', but is '{text}'", param="budget")
    if found["unit"].lower().startswith("trial"):
        if not float(found["amount"]).is_integer():
            raise Invalid(f"trials are whole, but the budget is '{text}'", param="budget")
        return Budget(trials=int(found["amount"]))
    return Budget(seconds=float(found["amount"]) * _SECONDS[found["unit"][0].lower()])


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides how a study goes, beside what it is about."""

    budget: Budget
    seed: int = 0
    sampler: Literal["tpe", "control"] = "tpe"
    """`control`: the Sobol sequence alone, for comparison."""
    control_every: int = 5
    """Every so many trials one belongs to the control arm."""
    startup: int = 5
    """First trials, which spread over the space: no model knows anything yet."""
    most_pairs: int = 3
    """Paired blocks that a trial gets while it may still be the best."""
    hot_per_start: int = 3
    """Most trials in a row that share an engine's process when starting it costs more than measuring it."""
    finalists: int = 2
    """Points that are confirmed."""
    units: int = 6
    """Engine starts on each side that a confirmation compares; with a budget in time as many as fit, at least 4."""
    self_test_units: int = 3
    """Engine starts of the incumbent against itself: the A/A test, which also says how large noise is."""
    alpha: float = 0.05
    """Chance of a false winner in a study without any, all finalists together."""
    block_requests: int | None = None
    """Requests in a block; None: as many as make it last `block_s`."""
    block_s: float = 10.0
    quality_items: int = 64
    """Asked of a point that takes the lead."""
    confirm_items: int = 1000
    """Most that are asked of a finalist and of the incumbent, with a fresh seed; fewer where fewer can tell."""
    length_margin: float = 0.1
    """How much longer or shorter answers may get before a profile is refused."""
    failure_margin: float = 0.01
    """Share of requests that may fail beyond the incumbent's."""

    def document(self) -> dict[str, Any]:
        """Plain data; `settings` reads it back."""
        return asdict(self)


def settings(document: Mapping[str, Any]) -> Settings:
    """What `Settings.document` wrote."""
    return Settings(**{**document, "budget": Budget(**document["budget"])})
