"""One error budget over everything that is watched at once.

Looks need no share of it: sequences are valid at all looks together. What does need one: every metric whose alarm
alone would act, and every step that judges anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from temper.errors import Invalid


def split(alpha: float, weights: Mapping[str, float]) -> dict[str, float]:
    """`alpha` divided by weight: any of the named judgements is wrong with probability `alpha` at most (Bonferroni).

    Raises:
        Invalid: alpha is no probability, or a weight is not above 0.
    """
    if not 0 < alpha < 1:
        raise Invalid(f"alpha must lie between 0 and 1, not be {alpha:g}", param="alpha")
    wrong = [name for name, weight in weights.items() if not weight > 0]
    if wrong or not weights:
        raise Invalid(f"each judgement needs a weight above 0: {', '.join(wrong) or 'none was given'}", param="weights")
    total = sum(weights.values())
    return {name: alpha * weight / total for name, weight in weights.items()}


def evenly(alpha: float, num: int) -> float:
    """Each one's share when `num` judgements count the same.

    Raises:
        Invalid: there is none, or alpha is no probability.
    """
    if num < 1:
        raise Invalid(f"a budget is divided among 1 or more judgements, not {num}", param="num")
    return split(alpha, {str(index): 1.0 for index in range(num)})["0"]
