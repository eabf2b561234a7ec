"""The charts of a study as SVG: history, Pareto front, importance, parallel coordinates, finalists.

Drawn on the server, so that the page needs no script and one file can hold it. Colours are classes of the style sheet,
which follows the colour scheme; every mark carries its words as a `<title>`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 18, 16, 42
PARALLEL_WIDTH, PARALLEL_HEIGHT = 1320, 400
MOST_AXES = 11
SHADES = 5
BARS = 12


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from a range of values to a range of pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


SECONDS = (
    ("quality", "higher"), ("ttft_ms.p90", "lower"), ("output_tokens_per_s", "higher"), ("rss_bytes", "lower"),
)  # fmt: skip
"""What an objective is usually bought with, and which way it is better."""

Study = Mapping[str, Any]
Trial = Mapping[str, Any]


def history(study: Study) -> Markup:
    """Each trial's effect in its order, and the best so far."""
    trials = [trial for trial in study["trials"] if trial["effect"] is not None]
    if not trials:
        return Markup("")
    x = _scale([trial["number"] for trial in study["trials"]], LEFT, WIDTH - RIGHT, pad=0.03)
    y = _scale([100 * trial["effect"] for trial in trials] + [0.0], HEIGHT - BOTTOM, TOP, pad=0.08)
    parts = [_axes(x, y, "trial", f"{study['metric']}, % against the incumbent"), _line_at(y(0.0), "zero")]
    best, steps = None, []
    for trial in trials:
        if trial["feasible"] and (best is None or trial["gain"] > best["gain"]):
            best = trial
        if best is not None:
            steps.append((x(trial["number"]), y(100 * best["effect"])))
    parts.append(_polyline(_stairs(steps), "best"))
    parts += [_dot(x(trial["number"]), y(100 * trial["effect"]), study, trial) for trial in trials]
    parts += [
        _cross(x(trial["number"]), HEIGHT - BOTTOM - 6, _words(study, trial))
        for trial in study["trials"]
        if trial["effect"] is None
    ]
    return _svg(parts, HEIGHT, "Effect of each trial in the order of the study")


def pareto(study: Study) -> Markup:
    """The objective against what it is usually bought with; points that nothing beats in both are joined."""
    second, better = _second(study)
    shown = [trial for trial in study["trials"] if trial["value"] is not None and second in trial["figures"]]
    if len(shown) < 3:
        return Markup("")
    unit = 1e-6 if second.endswith("_bytes") else 1.0
    label = second.replace("_bytes", ", MB") if unit != 1.0 else second
    x = _scale([trial["value"] for trial in shown], LEFT, WIDTH - RIGHT, pad=0.05)
    y = _scale([unit * trial["figures"][second] for trial in shown], HEIGHT - BOTTOM, TOP, pad=0.08)
    front = pareto_front(
        [(trial["value"], trial["figures"][second]) for trial in shown if trial["feasible"]],
        (study["better"] == "higher", better == "higher"),
    )
    parts = [_axes(x, y, study["metric"], label), _polyline([(x(a), y(unit * b)) for a, b in front], "front")]
    parts += [_dot(x(trial["value"]), y(unit * trial["figures"][second]), study, trial) for trial in shown]
    return _svg(parts, HEIGHT, f"{study['metric']} against {label}")


def pareto_front(points: Sequence[tuple[float, float]], higher: tuple[bool, bool]) -> list[tuple[float, float]]:
    """The points that no other beats in one coordinate without losing in the other, by the first coordinate."""
    signs = tuple(1 if up else -1 for up in higher)
    front: list[tuple[float, float]] = []
    best = float("-inf")
    for point in sorted(set(points), key=lambda p: (-signs[0] * p[0], -signs[1] * p[1])):
        if signs[1] * point[1] > best:
            best = signs[1] * point[1]
            front.append(point)
    return sorted(front)


def importance(study: Study) -> Markup:
    """How much each knob decides, as bars."""
    shares = list(study["evidence"]["importance"].items())[:BARS]
    if not shares:
        return Markup("")
    most = max(share for _, share in shares) or 1.0
    step, left = 26, 210
    parts = []
    for row, (path, share) in enumerate(shares):
        top = TOP + row * step
        width = (WIDTH - left - 70) * share / most
        name = html.escape(path.removeprefix("engine."))
        parts.append(
            f'<text class="label end" x="{left - 10}" y="{top + 15}">{name}</text>'
            f'<rect class="bar" x="{left}" y="{top + 3}" width="{max(1.0, width):.1f}" height="16" rx="3"></rect>'
            f'<text class="label" x="{left + width + 8:.1f}" y="{top + 15}">{share:.0%}</text>'
        )
    return _svg(parts, TOP + len(shares) * step + 10, "Importance of each knob")


def parallel(study: Study) -> Markup:
    """Every measured trial as a line through its values, the better the stronger."""
    branch = study["incumbent"]["branch"]
    knobs = next(item["knobs"] for item in study["space"] if item["branch"] == branch)
    weights = study["evidence"]["importance"]
    knobs = sorted(knobs, key=lambda knob: -weights.get(knob["path"], 0.0))[:MOST_AXES]
    shown = [trial for trial in study["trials"] if trial["gain"] is not None and trial["branch"] == branch]
    if len(shown) < 2 or not knobs:
        return Markup("")
    right, bottom = PARALLEL_WIDTH - 64, PARALLEL_HEIGHT - 16
    places = [LEFT + (right - LEFT) * index / len(knobs) for index in range(len(knobs) + 1)]
    gain = _scale([trial["gain"] for trial in shown], bottom, TOP + 34, pad=0.0)
    low, high = min(trial["gain"] for trial in shown), max(trial["gain"] for trial in shown)
    rungs = [_rungs(knob, bottom) for knob in knobs]
    parts = []
    for trial in sorted(shown, key=lambda trial: trial["gain"]):
        shade = round((SHADES - 1) * (trial["gain"] - low) / ((high - low) or 1.0))
        points = [
            (place, rung[_key(trial["values"][knob["path"]])])
            for place, rung, knob in zip(places, rungs, knobs, strict=False)
        ]
        points.append((places[-1], gain(trial["gain"])))
        parts.append(_polyline(points, f"path shade{shade}", _words(study, trial)))
    for place, rung, knob in zip(places, rungs, knobs, strict=False):
        name = knob["path"].rpartition(".")[2]
        parts.append(f'<line class="axis" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP + 34}" y2="{bottom}"></line>')
        stagger = TOP + (6 if knobs.index(knob) % 2 else 22)
        parts.append(f'<text class="label middle" x="{place:.1f}" y="{stagger}">{html.escape(name)}</text>')
        parts += [
            f'<text class="tick" x="{place + 5:.1f}" y="{at + 4:.1f}">{html.escape(_shown(value))}</text>'
            for value, at in zip(knob["values"], rung.values(), strict=True)
        ]
    parts.append(f'<line class="axis" x1="{places[-1]}" x2="{places[-1]}" y1="{TOP + 34}" y2="{bottom}"></line>')
    parts.append(f'<text class="label middle" x="{places[-1]}" y="{TOP + 6}">gain</text>')
    parts += [f'<text class="tick" x="{places[-1] + 5}" y="{gain(at) + 4:.1f}">{at:+.2f}</text>' for at in (low, high)]
    return _svg(parts, PARALLEL_HEIGHT, "Parallel coordinates of all trials", PARALLEL_WIDTH)


def finalists(study: Study) -> Markup:
    """The confirmed effects with their intervals, a row each."""
    shown = [entry for entry in study["evidence"]["finalists"] if entry["target"] and entry["target"]["interval"]]
    if not shown:
        return Markup("")
    ends = [100 * end for entry in shown for end in entry["target"]["interval"]]
    ends += [100 * entry["search_effect"] for entry in shown] + [0.0]
    step, left = 38, 110
    height = TOP + len(shown) * step + BOTTOM
    x = _scale(ends, left, WIDTH - RIGHT, pad=0.06)
    parts = [_ticks_x(x, height, f"{study['metric']}, % against the incumbent")]
    parts.append(f'<line class="zero" x1="{x(0.0):.1f}" x2="{x(0.0):.1f}" y1="{TOP}" y2="{height - BOTTOM}"></line>')
    for row, entry in enumerate(shown):
        at = TOP + row * step + step / 2
        low, high = (100 * end for end in entry["target"]["interval"])
        name = "good" if entry["outcome"] == "pass" else "bad" if entry["outcome"] == "fail" else "open"
        words = html.escape(
            f"trial {entry['trial']}: {100 * entry['target']['effect']:+.1f} % ({low:+.1f} … {high:+.1f})"
        )
        parts.append(
            f'<g class="{name}"><title>{words}</title>'
            f'<text class="label end" x="{left - 12}" y="{at + 4}">trial {entry["trial"]}</text>'
            f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{at}" y2="{at}"></line>'
            f'<circle class="dot" cx="{x(100 * entry["target"]["effect"]):.1f}" cy="{at}" r="5"></circle>'
            f'<circle class="searched" cx="{x(100 * entry["search_effect"]):.1f}" cy="{at}" r="4"></circle></g>'
        )
    return _svg(parts, height, "Confirmed effect of each finalist; hollow: what the search had seen")


# -- pieces ------------------------------------------------------------------------------------------


def _second(study: Study) -> tuple[str, str]:
    """The second axis of the Pareto chart: the first of these that two trials show, and its better direction."""
    for name, better in SECONDS:
        if name != study["metric"] and sum(name in trial["figures"] for trial in study["trials"]) >= 3:
            return name, better
    return "rss_bytes", "lower"


def _class(trial: Trial) -> str:
    if trial["arm"] == "incumbent":
        return "dot incumbent"
    return f"dot {trial['arm']}" + ("" if trial["feasible"] else " infeasible")


def _words(study: Study, trial: Trial) -> str:
    base = study["incumbent"]["values"]
    changed = [
        f"{path.rpartition('.')[2]}={_shown(value)}"
        for path, value in trial["values"].items()
        if base.get(path, value) != value
    ]
    effect = "" if trial["effect"] is None else f" {100 * trial['effect']:+.1f} %"
    return f"trial {trial['number']} ({trial['arm']}){effect}: {', '.join(changed) or 'as it is'}; {trial['reason']}"


def _shown(value: Any) -> str:
    if value is None:
        return "as is"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _key(value: Any) -> str:
    return f"{type(value).__name__}:{value}"


def _rungs(knob: Mapping[str, Any], bottom: float) -> dict[str, float]:
    """Where each value of a ladder stands on its axis."""
    values = knob["values"]
    top = TOP + 42
    step = (bottom - 6 - top) / max(1, len(values) - 1)
    return {_key(value): bottom - 6 - index * step for index, value in enumerate(values)}


def _scale(values: Sequence[float], start: float, end: float, pad: float) -> Scale:
    """A linear map from the values' range, widened by `pad` of it on each side, to the pixels from `start` to `end`."""
    low, high = min(values), max(values)
    room = (high - low) * pad or abs(high) * 0.05 or 1.0
    return Scale(low - room, high + room, start, end)


def _nice(scale: Scale, count: int = 5) -> list[float]:
    """Round numbers inside a scale's range."""
    low, high = scale.low, scale.high
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    first = -(-low // step)
    return [step * (first + index) for index in range(int((high - step * first) / step) + 1)]


def _axes(x: Scale, y: Scale, x_label: str, y_label: str) -> str:
    parts = [_ticks_x(x, HEIGHT, x_label)]
    for value in _nice(y):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"></line>'
        )
        parts.append(f'<text class="tick end" x="{LEFT - 7}" y="{y(value) + 4:.1f}">{value:g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 14 {middle})" x="14" y="{middle}"'
    parts.append(f'<text class="label middle" {turned}>{html.escape(y_label)}</text>')
    return "".join(parts)


def _ticks_x(x: Scale, height: float, label: str) -> str:
    parts = [
        f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{height - BOTTOM}"></line>'
        f'<text class="tick middle" x="{x(value):.1f}" y="{height - BOTTOM + 16}">{value:g}</text>'
        for value in _nice(x)
    ]
    return (
        "".join(parts)
        + f'<text class="label middle" x="{(LEFT + WIDTH) / 2}" y="{height - 6}">{html.escape(label)}</text>'
    )


def _line_at(y: float, name: str) -> str:
    return f'<line class="{name}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"></line>'


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for x, y in points:
        if found:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return found


def _polyline(points: Sequence[tuple[float, float]], name: str, words: str = "") -> str:
    if not points:
        return ""
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{name}" points="{where}"><title>{html.escape(words)}</title></polyline>'


def _dot(x: float, y: float, study: Study, trial: Trial) -> str:
    words = html.escape(_words(study, trial))
    return f'<circle class="{_class(trial)}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{words}</title></circle>'


def _cross(x: float, y: float, words: str) -> str:
    return f'<path class="cross" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"><title>{html.escape(words)}</title></path>'


def _svg(parts: Sequence[str], height: float, words: str, width: float = WIDTH) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(words)}">'
        f"{''.join(parts)}</svg>"
    )
