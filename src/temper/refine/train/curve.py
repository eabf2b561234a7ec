"""The curve of a run as one HTML file: loss, held-out loss, learning rate, gradient, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from temper.measure import drawing

MAX_POINTS = 400
"""Of a line: longer histories are averaged, so that the page stays small."""


def curve_page(title: str, history: Sequence[Mapping[str, Any]]) -> str:
    """The page for the lines of a history, oldest first."""
    held_out = [(float(line["step"]), float(line["validation"])) for line in history if "validation" in line]
    losses = [("training", _points(history, "loss"))]
    losses += [(name, _points(history, "parts", name)) for name in (history[-1]["parts"] if history else ())]
    losses += [("held out", held_out)] if held_out else []
    seconds = sum(line["seconds"] for line in history)
    tokens = sum(line["tokens"] for line in history)
    rate = tokens / max(seconds, 1e-9)
    rows = [(line["step"], line["loss"], line.get("validation"), line["learning_rate"], line["gradient_norm"])
            for line in _some(history)]  # fmt: skip
    return drawing.document(title, [
        f"<h1>{drawing.text(title)}</h1>",
        f"<p>{len(history)} steps, {tokens:,} tokens in {seconds:,.0f} s: {rate:,.0f} tokens/s.</p>",
        drawing.chart("Loss", "step", "nats a token", losses),
        drawing.chart("Learning rate", "step", "millionths", [("rate", _points(history, "learning_rate", scale=1e6))]),
        drawing.chart("Gradient before it is cut", "step", "norm", [("norm", _points(history, "gradient_norm"))]),
        drawing.table(("step", "loss", "held out", "learning rate", "gradient"), rows),
        drawing.definitions({
            "loss": "cross-entropy of the learned tokens of one step, or what the recipe makes small instead",
            "held out": "cross-entropy on examples that are not learned from",
            "gradient": "length over all weights, before clip_norm cuts it",
        }),
    ])  # fmt: skip


def _points(history: Sequence[Mapping[str, Any]], *path: str, scale: float = 1.0) -> list[drawing.Point]:
    """Means over neighbouring steps, as many as there are points."""
    width = -(-len(history) // MAX_POINTS)
    found = []
    for begin in range(0, len(history), max(1, width)):
        lines = history[begin : begin + width]
        values: list[Any] = list(lines)
        for name in path:
            values = [value[name] for value in values]
        found.append((float(lines[-1]["step"]), scale * sum(values) / len(values)))
    return found


def _some(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most 20 lines, those with a held-out loss first of all."""
    chosen = [line for line in history if "validation" in line] or list(history)
    every = max(1, -(-len(chosen) // 20))
    return chosen[every - 1 :: every]
