"""Studies on invented machines, for the tests of the tuner."""

from __future__ import annotations

import asyncio
from typing import Any

from temper.profile import store
from temper.profile.schema import Profile
from temper.tuner.evaluate import Evaluator
from temper.tuner.ledger import Ledger
from temper.tuner.objective import parse
from temper.tuner.run import run
from temper.tuner.search import Search
from temper.tuner.settings import Budget, Settings
from temper.tuner.simulated import InventedEvaluator, Scenario, scenario
from temper.tuner.space import Space, branch_of

LADDERS: dict[str, tuple[Any, ...]] = {
    "max_sequences": (1, 2, 4, 8, 16, 32),
    "precision": ("as-stored", "int4", "int8"),
    "two_digits": ("none", "head", "all"),
}

MACHINE = """
[figures]
output_tokens_per_s = 100.0
answer_tokens = 64.0
rss_bytes = 4e8
"ttft_ms.p90" = 300.0

[[effects]]
knob = "max_sequences"
metric = "output_tokens_per_s"
power = 0.2
[[effects]]
knob = "max_sequences"
metric = "ttft_ms.p90"
power = 0.5
[[effects]]
knob = "two_digits"
value = "none"
metric = "output_tokens_per_s"
factor = 1.25
"""


def default() -> Profile:
    return store.override(store.resolve("default"), {"max_sequences": 2})


def space(**options: Any) -> Space:
    return Space([branch_of("native", default(), **({"only": tuple(LADDERS), "ladders": LADDERS} | options))])


def machine(more: str = "") -> Scenario:
    return scenario(MACHINE + more)


def search(
    world: Scenario | None = None,
    *,
    objective: str = "throughput",
    trials: int = 12,
    seed: int = 0,
    quality: bool = False,
    ledger: Ledger | None = None,
    evaluator: Evaluator | None = None,
    **settings: Any,
) -> Search:
    found = space()
    kept = ledger or Ledger(None)
    if ledger is None:
        kept.begin("study", {})
    chosen = Settings(Budget(trials=trials), seed=seed, **({"block_requests": 16} | settings))
    measuring = evaluator or InventedEvaluator(world or machine(), found.incumbent, seed)
    return Search("study", found, parse(objective), chosen, measuring, kept, with_quality=quality)


def study(*arguments: Any, **options: Any) -> dict[str, Any]:
    return asyncio.run(run(search(*arguments, **options)))
