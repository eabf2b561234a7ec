"""What each knob does, by an additive model of the gains measured: which proposal to try, importance for the page, and
what a winner can do without.

A search looks mostly where it is good already, so values that came along by chance look important when knobs are
judged one at a time. Here all knobs explain all gains together (ridge regression on one column a value), so a knob
gets what the others leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from temper.tuner.space import Branch, Point, Value

RIDGE = 0.5
"""How many imagined trials without effect stand against each value: a value seen once is believed in part."""
FEWEST_POINTS = 6


@dataclass(frozen=True, slots=True)
class Effects:
    """The additive model of one branch."""

    worth: dict[tuple[str, Value], float]
    """Gain that a value adds, by (path, value); values never tried are not in it."""
    mean: float = 0.0
    """Gain of all measured points together."""

    def change(self, path: str, before: Value, after: Value) -> float:
        """What going from one value to another is worth; 0 where either was never tried."""
        if (path, before) not in self.worth or (path, after) not in self.worth:
            return 0.0
        return self.worth[path, after] - self.worth[path, before]

    def predicted(self, branch: Branch, point: Point) -> float:
        """Gain to expect at a point. A value never tried is taken for the nearest ones tried on its ladder, or for
        nothing where it has none."""
        found = self.mean
        for knob, (path, value) in zip(branch.knobs, point.values, strict=True):
            if (path, value) in self.worth:
                found += self.worth[path, value]
            elif knob.ordered:
                at = knob.values.index(value)
                tried = [
                    (abs(place - at), self.worth[path, other])
                    for place, other in enumerate(knob.values)
                    if (path, other) in self.worth
                ]
                nearest = min((distance for distance, _ in tried), default=0)
                beside = [worth for distance, worth in tried if distance == nearest]
                found += sum(beside) / max(1, len(beside))
        return found

    def importance(self) -> dict[str, float]:
        """Each knob's share of what all explain: the variance over its tried values, largest first."""
        spread: dict[str, float] = {}
        for path in dict.fromkeys(path for path, _ in self.worth):
            values = [worth for (other, _), worth in self.worth.items() if other == path]
            spread[path] = float(np.var(values))
        total = sum(spread.values())
        if total <= 0:
            return {}
        return {path: found / total for path, found in sorted(spread.items(), key=lambda item: -item[1])}


def fit(branch: Branch, measured: Sequence[tuple[Point, float]]) -> Effects:
    """The model of (point, gain) pairs of one branch; empty with fewer than `FEWEST_POINTS`."""
    rows = [(dict(point.values), gain) for point, gain in measured if point.branch == branch.name]
    columns = [(knob.path, value) for knob in branch.knobs for value in knob.values]
    seen = [(path, value) for path, value in columns if any(_has(row, path, value) for row, _ in rows)]
    if len(rows) < FEWEST_POINTS:
        return Effects({})
    design = np.array([[float(_has(row, path, value)) for path, value in seen] for row, _ in rows])
    gains = np.array([gain for _, gain in rows])
    design = design - design.mean(axis=0)
    found = np.linalg.solve(design.T @ design + RIDGE * np.eye(len(seen)), design.T @ (gains - gains.mean()))
    worth = {column: float(value) for column, value in zip(seen, found, strict=True)}
    return Effects(worth, float(gains.mean()))


def simpler(branch: Branch, point: Point, effects: Effects, threshold: float) -> Point:
    """The point with every knob back at the incumbent's value whose change is worth less than `threshold`."""
    values = []
    for knob, (path, value) in zip(branch.knobs, point.values, strict=True):
        keeps = effects.change(path, knob.incumbent, value) >= threshold
        values.append((path, value if keeps else knob.incumbent))
    return Point(point.branch, tuple(values))


def neighbours(branch: Branch, point: Point, effects: Effects) -> list[Point]:
    """The points one step from `point`, the most promising first: a step on a ladder, or another choice.

    What a value is worth that was never tried is guessed on from the other side of the ladder.
    """
    found: list[tuple[float, Point]] = []
    for place, knob in enumerate(branch.knobs):
        path, value = point.values[place]
        at = knob.values.index(value)
        steps = (at - 1, at + 1) if knob.ordered else tuple(range(len(knob.values)))
        for step in steps:
            if step == at or not 0 <= step < len(knob.values):
                continue
            promise = effects.change(path, value, knob.values[step])
            opposite = 2 * at - step
            if (path, knob.values[step]) not in effects.worth and knob.ordered and 0 <= opposite < len(knob.values):
                promise = -effects.change(path, value, knob.values[opposite])
            values = (*point.values[:place], (path, knob.values[step]), *point.values[place + 1 :])
            found.append((promise, Point(point.branch, values)))
    return [moved for _, moved in sorted(found, key=lambda item: -item[0])]


def _has(row: dict[str, Value], path: str, value: Value) -> bool:
    return path in row and type(row[path]) is type(value) and row[path] == value
