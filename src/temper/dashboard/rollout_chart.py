"""The chart of a rollout as SVG: a metric's confidence sequence as it narrows, look by look, with its steps.

Drawn on the server, as those of the studies; colours are classes of the style sheet.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 14, 40
LABEL_WIDTH = 40.0
"""Of the name of a share, with the space around it."""
WIDEST = 1.0
"""Ends beyond ± so much are cut: an interval of −100 … ∞ % says nothing and would hide the rest."""

Look = Mapping[str, Any]


def narrowing(looks: Sequence[Look], metric: str, tolerance: float | None) -> Markup:
    """The interval and the estimate of `metric` over the units judged; empty where nothing was seen."""
    seen = [look for look in looks if look.get(metric) and look[metric][0] is not None]
    if not seen:
        return Markup("")
    most: int = max(look["num_requests"] for look in seen)
    reach = _reach(seen, metric, tolerance)

    def x(number: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * number / max(most, 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (0.5 - max(-reach, min(reach, value)) / (2 * reach))

    parts = [_grid(x, y, most, reach), _steps(seen, x)]
    for run in _runs(seen):
        upper = [(x(look["num_requests"]), y(_end(look[metric][2], reach))) for look in run]
        lower = [(x(look["num_requests"]), y(_end(look[metric][1], -reach))) for look in run]
        parts.append(f'<polygon class="band" points="{_points([*upper, *reversed(lower)])}"/>')
        line = _points([(x(look["num_requests"]), y(look[metric][0])) for look in run])
        parts.append(f'<polyline class="estimate" points="{line}"/>')
    parts.append(f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>')
    if tolerance is not None and tolerance < reach:
        at = y(tolerance)
        parts.append(f'<line class="tolerance" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="end" x="{WIDTH - RIGHT}" y="{at - 4:.1f}">tolerated</text>')
    last = seen[-1][metric]
    said = f"{metric} after {most} units: {_percent(last[0])} ({_percent(last[1])} … {_percent(last[2])})"
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(said)}">'
    return Markup(head + "".join(parts) + "</svg>")


def _reach(seen: Sequence[Look], metric: str, tolerance: float | None) -> float:
    """Half of the height: what the later half of the looks needs."""
    later = seen[len(seen) // 2 :]
    ends: list[float] = [abs(end) for look in later for end in look[metric] if end is not None and abs(end) <= WIDEST]
    return min(WIDEST, 1.25 * max([*ends, 1.5 * (tolerance or 0.0), 0.01]))


def _runs(seen: Sequence[Look]) -> list[list[Look]]:
    """Looks of one share together: a new share begins anew."""
    runs: list[list[Look]] = []
    for look in seen:
        if not runs or runs[-1][-1]["share"] != look["share"]:
            runs.append([])
        runs[-1].append(look)
    return runs


def _steps(seen: Sequence[Look], x: Any) -> str:
    """A line where each share began, named where its name has room before the next line."""
    begun = [next(looks) for _, looks in groupby(seen, key=itemgetter("share"))]
    places = [x(look["num_requests"]) for look in begun]
    parts = []
    for look, at, following in zip(begun, places, (*places[1:], float("inf")), strict=True):
        parts.append(f'<line class="step" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        if following - at >= LABEL_WIDTH:
            parts.append(f'<text class="label" x="{at + 3:.1f}" y="{TOP + 10}">{look["share"]:.0%}</text>')
    return "".join(parts)


def _grid(x: Any, y: Any, most: int, reach: float) -> str:
    parts = []
    for value in (-reach, -reach / 2, 0.0, reach / 2, reach):
        at = y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{at + 4:.1f}">{_percent(value)}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<text class="middle" x="{x(share * most):.1f}" y="{HEIGHT - BOTTOM + 16}">{share * most:.0f}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="middle label" x="{middle}" y="{HEIGHT - 6}">units judged</text>')
    return "".join(parts)


def _end(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or not math.isfinite(value) else value


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:+.3g} %"
