"""A size shared out among layers: bits go where they save most of what rounding loses.

Knows sizes and losses, no model. That losses of layers add up is an assumption: what comes of it is measured after.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from temper.errors import Invalid


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to store a unit."""

    bits: int
    num_bits_stored: float
    """Of the whole unit, scales among them."""
    loss: float
    """What the model loses when this unit alone is stored so; may come out below 0, by chance."""


def share_out(units: Mapping[str, list[Choice]], num_weights: int, budget_bits: float) -> dict[str, int]:
    """The bits of each unit, within `budget_bits` a weight on average over `num_weights`.

    Everything begins at its smallest; the step that saves most loss a bit is taken as long as it fits. Along the lower
    convex hull of each unit's choices that is the best there is, but for what the last step leaves unused (multiple
    choice knapsack, its linear relaxation; Sinha & Zoltners, 1979).

    Raises:
        Invalid: not even the smallest choices fit.
    """
    hulls = {name: _hull(choices) for name, choices in units.items()}
    used = sum(hull[0].num_bits_stored for hull in hulls.values())
    allowed = budget_bits * num_weights
    if used > allowed * (1 + 1e-9):
        raise Invalid(
            f"a budget must hold all layers at their fewest bits, {used / num_weights:.2f} a weight with scales, but "
            f"is {budget_bits:.2f}",
            param="budget_bits",
            hint="raise it, take larger groups, or allow fewer bits",
        )
    taken = dict.fromkeys(hulls, 0)
    waiting = [(-_gain(hull, 0), name) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(waiting)
    while waiting:
        _, name = heapq.heappop(waiting)
        hull, at = hulls[name], taken[name]
        more = hull[at + 1].num_bits_stored - hull[at].num_bits_stored
        if used + more > allowed * (1 + 1e-9):
            continue  # a smaller unit may still fit
        used += more
        taken[name] = at + 1
        if at + 2 < len(hull):
            heapq.heappush(waiting, (-_gain(hull, at + 1), name))
    return {name: hulls[name][at].bits for name, at in taken.items()}


def _gain(hull: list[Choice], at: int) -> float:
    """Loss saved a bit by the step after `at`."""
    here, there = hull[at], hull[at + 1]
    return (here.loss - there.loss) / (there.num_bits_stored - here.num_bits_stored)


def _hull(choices: list[Choice]) -> list[Choice]:
    """The choices on the lower convex hull of loss over size, smallest first."""
    found: list[Choice] = []
    for choice in sorted(choices, key=lambda one: (one.num_bits_stored, one.loss)):
        if found and choice.loss >= found[-1].loss:
            continue  # larger and no better
        found.append(choice)
        while len(found) > 2 and _gain(found, len(found) - 3) < _gain(found, len(found) - 2):
            del found[-2]
    return found
