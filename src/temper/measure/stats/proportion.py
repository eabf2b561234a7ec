"""Exact bounds for a proportion (Clopper–Pearson), the verdict on a promise made of one, and two of them compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from temper.measure.stats.estimate import Estimate
from temper.measure.stats.percentile import CLAIM_CONFIDENCE


def upper_bound(hits: int, total: int, confidence: float) -> float:
    """The largest true share that does not make `hits` or fewer of `total` surprising."""
    from scipy.stats import beta

    return 1.0 if hits >= total else float(beta.ppf(confidence, hits + 1, total - hits))


def lower_bound(hits: int, total: int, confidence: float) -> float:
    """The smallest true share that does not make `hits` or more of `total` surprising."""
    from scipy.stats import beta

    return 0.0 if hits == 0 else float(beta.ppf(1 - confidence, hits, total - hits + 1))


@dataclass(frozen=True, slots=True)
class ShareVerdict:
    """Whether at most `allowed` of all requests break a limit."""

    verdict: Literal["pass", "fail", "inconclusive"]
    share: float
    """Of the requests seen that broke it."""
    interval: tuple[float, float]
    """Each end holds with `confidence`."""
    confidence: float
    allowed: float


def at_most(hits: int, total: int, allowed: float, confidence: float = CLAIM_CONFIDENCE) -> ShareVerdict:
    """Judge `hits` of `total`: pass when even the upper bound is allowed, fail when not even the lower one is."""
    if total == 0:
        return ShareVerdict("inconclusive", 0.0, (0.0, 1.0), confidence, allowed)
    low, high = lower_bound(hits, total, confidence), upper_bound(hits, total, confidence)
    # 459 requests without a miss are the textbook case for 1 %: keep float noise from denying it.
    slack = 1e-9
    verdict: Literal["pass", "fail", "inconclusive"] = (
        "pass" if high <= allowed + slack else "fail" if low > allowed else "inconclusive"
    )
    return ShareVerdict(verdict, hits / total, (low, high), confidence, allowed)


def difference(
    hits_a: int, total_a: int, hits_b: int, total_b: int, *, confidence: float = 0.95, design_effect: float = 1.0
) -> Estimate:
    """Share of B − share of A in two independent samples: Newcombe's hybrid score interval, Fisher's exact p-values.

    Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17, 1998,
    method 10; it stands up to 0 hits. A `design_effect` above 1 says that hits come in clusters, and makes the
    samples smaller by as much (see `design_effect`).
    """
    method = "Newcombe's interval, Fisher's exact test"
    evidence = {"hits_a": hits_a, "total_a": total_a, "hits_b": hits_b, "total_b": total_b,
                "design_effect": design_effect}  # fmt: skip
    if not total_a or not total_b:
        return Estimate(None, None, confidence, method, 0, reason="an arm has no units", evidence=evidence)
    import numpy as np
    from scipy.stats import fisher_exact

    share_a, share_b = hits_a / total_a, hits_b / total_b
    low_a, high_a = _wilson(share_a, total_a / design_effect, confidence)
    low_b, high_b = _wilson(share_b, total_b / design_effect, confidence)
    effect = share_b - share_a
    interval = (
        effect - math.hypot(share_b - low_b, high_a - share_a),
        effect + math.hypot(high_b - share_b, share_a - low_a),
    )
    sizes = [max(1, round(total / design_effect)) for total in (total_b, total_a)]
    hits = [round(share * size) for share, size in zip((share_b, share_a), sizes, strict=True)]
    table = np.array([[hit, size - hit] for hit, size in zip(hits, sizes, strict=True)])
    return Estimate(
        effect=effect,
        interval=interval,
        confidence=confidence,
        method=method,
        num_units=min(total_a, total_b),
        p_higher=float(fisher_exact(table, alternative="greater").pvalue),
        p_lower=float(fisher_exact(table, alternative="less").pvalue),
        evidence=evidence,
    )


def design_effect(hits: Sequence[int], totals: Sequence[int]) -> float:
    """By how much hits per block spread more than independent ones would, 1 at least (Kish's design effect).

    `hits[i]` of `totals[i]` fell into block i.
    """
    share = sum(hits) / sum(totals) if sum(totals) else 0.0
    if sum(total > 0 for total in totals) < 2 or share in (0.0, 1.0):
        return 1.0
    blocks = [(hit, total) for hit, total in zip(hits, totals, strict=True) if total]
    spread = sum((hit - share * total) ** 2 / (total * share * (1 - share)) for hit, total in blocks)
    return max(1.0, spread / (len(blocks) - 1))


def _wilson(share: float, total: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval; `total` need not be whole."""
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)
