"""What a deployment's requests were like lately: how many, how long, how fast, how often wrong."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from temper.measure.stats.percentile import nearest_rank
from temper.measure.workload.schema import Workload

if TYPE_CHECKING:
    from temper.fleet.store import Store

KEPT = 400
"""Values of each kind that are written down: evenly spaced order statistics of all."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Ended requests of one window. Values ascend."""

    num_requests: int
    num_failed: int
    num_judged: int
    """Whose quality was sampled."""
    num_wrong: int
    seconds: float
    """From the first request to the last."""
    prompt_tokens: tuple[float, ...]
    output_tokens: tuple[float, ...]
    ttft_ms: tuple[float, ...]
    e2e_ms: tuple[float, ...]

    @property
    def per_second(self) -> float:
        """Arrivals."""
        return self.num_requests / self.seconds if self.seconds > 0 else 0.0

    def prose(self) -> str:
        """One sentence."""
        if not self.e2e_ms:
            return f"{self.num_requests} requests came and none was answered."
        return (
            f"{self.num_requests} requests came, {self.per_second:.3g} a second, with "
            f"{_middle(self.prompt_tokens):.0f} tokens in and {_middle(self.output_tokens):.0f} out in the middle; "
            f"answers took {_middle(self.e2e_ms):.0f} ms, the slowest of a hundred "
            f"{nearest_rank(self.e2e_ms, 99):.0f} ms; {self.num_failed} failed."
        )

    def workload(self, name: str) -> Workload:
        """Traffic like this one, to tune for: log-normal lengths of the same middle and spread, Poisson arrivals."""
        return Workload.model_validate(
            {
                "name": name,
                "arrivals": {"kind": "open", "rate": max(self.per_second, 0.01)},
                "content": {
                    "kind": "synthetic",
                    "input_tokens": _lengths(self.prompt_tokens),
                    "output_tokens": _lengths(self.output_tokens),
                },
            }
        )

    def to_json(self) -> str:
        """Small enough to keep."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Seen:
        """From `to_json()`."""
        kept: dict[str, Any] = json.loads(text)
        for name, value in kept.items():
            kept[name] = tuple(value) if isinstance(value, list) else value
        return cls(**kept)


def observe(store: Store, deployment: str, seconds: float, most: int = 5000) -> Seen:
    """The last `seconds` of a deployment's production."""
    rows = store.requests.window(deployment, store.database.now() - seconds, most=most)
    whole = [row for row in rows if row["outcome"] == "ok"]
    judged = [row["quality"] for row in rows if row["quality"] is not None]
    return Seen(
        num_requests=len(rows),
        num_failed=sum(row["outcome"] in ("failed", "refused", "lost", "overdue") for row in rows),
        num_judged=len(judged),
        num_wrong=sum(value < 0.5 for value in judged),
        seconds=rows[-1]["dispatched_at"] - rows[0]["dispatched_at"] if rows else 0.0,
        prompt_tokens=_values(whole, "prompt_tokens"),
        output_tokens=_values(whole, "output_tokens"),
        ttft_ms=_values(whole, "ttft_ms"),
        e2e_ms=_values(whole, "e2e_ms"),
    )


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, ...]:
    values = sorted(float(row[name]) for row in rows if row[name] is not None)
    if len(values) <= KEPT:
        return tuple(values)
    return tuple(values[round(at * (len(values) - 1) / (KEPT - 1))] for at in range(KEPT))


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def _lengths(values: Sequence[float]) -> dict[str, Any]:
    logs = [math.log(max(value, 1.0)) for value in values]
    low, high = max(1, round(min(values))), max(1, round(max(values)))
    sigma = statistics.pstdev(logs)
    if low == high or sigma < 0.01:
        return {"kind": "fixed", "tokens": round(_middle(values))}
    median = math.exp(statistics.fmean(logs))
    return {"kind": "lognormal", "median": median, "sigma": sigma, "low": low, "high": high}
