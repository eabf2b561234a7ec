"""A benchmark as one HTML file: throughput against latency, distributions, figures. No script, no network.

Draws what `bench` found as inline SVG. Figures stand in the page as text and tables too, so nothing depends on
seeing colours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from temper.measure.bench import figure
from temper.measure.drawing import Line, Point, chart, definitions, document, table, text


def page(found: Mapping[str, Any]) -> str:
    """The whole file for a result of `bench` or `subjects.measure`."""
    runs = found["runs"]
    parts = [
        f"<h1>Benchmark: {text(found['workload']['name'])}</h1>",
        _doubts(found),
        chart("Throughput against first token", "output tokens/s", "TTFT p50, ms", _curve(runs, "ttft_ms.p50")),
        chart("Throughput against inter-token latency", "output tokens/s", "ITL p50, ms", _curve(runs, "itl_ms.p50")),
        *(chart(f"Distribution of {label}", "% of values", f"{label}, ms", _distribution(runs, name))
          for name, label in (("ttft_ms", "time to first token"), ("itl_ms", "inter-token latency"),
                              ("e2e_ms", "end-to-end latency"))),
        "<h2>Runs</h2>", _runs_table(runs),
        "<h2>Ratios</h2>" + _ratios_table(found["ratios"]) if found["ratios"] else "",
        definitions(found["definitions"]),
        "<h2>Workload</h2><pre>", text(json.dumps(found["workload"], indent=1)), "</pre>",
    ]  # fmt: skip
    return document("temper bench", parts)


def _doubts(found: Mapping[str, Any]) -> str:
    """What a reader must know before the figures."""
    lines = [f"missing: {entry['engine']}: {entry['reason']}" for entry in found.get("missing", ())]
    for run in found["runs"]:
        lines += [f"{run['engine']}: the load generator was the bottleneck: {r}" for r in run["generator"]["reasons"]]
        lines += [f"{run['engine']}: {count} requests failed: {kind}" for kind, count in run["failures"].items()]
        lines += [f"{run['engine']}: {note}" for note in run["notes"]]
    return "".join(f'<p class="doubt">{text(line)}</p>' for line in dict.fromkeys(lines))


def _curve(runs: Sequence[Mapping[str, Any]], metric: str) -> list[Line]:
    """One line per engine through its loads, the median of its rounds at each."""
    lines: dict[str, dict[Any, list[Point]]] = {}
    for run in runs:
        speed, latency = figure(run, "output_tokens_per_s"), figure(run, metric)
        if speed is not None and latency is not None:
            load = run.get("concurrency") or run.get("rate") or 0
            lines.setdefault(run["engine"], {}).setdefault(load, []).append((speed, latency))
    return [(name, [_middle(points) for _, points in sorted(loads.items())]) for name, loads in lines.items()]


def _middle(points: Sequence[Point]) -> Point:
    return _median([x for x, _ in points]), _median([y for _, y in points])


def _distribution(runs: Sequence[Mapping[str, Any]], name: str) -> list[Line]:
    """Latency by share of values, of the last round at each load."""
    last: dict[str, list[float]] = {}
    for run in runs:
        load = run.get("concurrency") or run.get("rate")
        if run["distribution"][name]:
            last[f"{run['engine']} @ {load}" if load is not None else run["engine"]] = run["distribution"][name]
    return [(label, [(float(x), y) for x, y in enumerate(values)]) for label, values in last.items()]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _runs_table(runs: Sequence[Mapping[str, Any]]) -> str:
    columns = ("output_tokens_per_s", "prefill_tokens_per_s", "ttft_ms.p50", "ttft_ms.p90", "ttft_ms.p99", "itl_ms.p50",
               "itl_ms.p99", "e2e_ms.p50", "e2e_ms.p99", "goodput_per_s")  # fmt: skip
    rows = []
    for run in runs:
        load = run.get("concurrency") or run.get("rate") or "recorded"
        rss = figure(run, "rss_bytes")
        done = f"{run['completed']}/{run['requests']}"
        figures = [figure(run, name) for name in columns]
        rows.append((run["engine"], load, run["round"] + 1, done, *figures, None if rss is None else rss / 1e6))
    return table(("engine", "load", "round", "done", *columns, "RSS MB"), rows)


def _ratios_table(ratios: Sequence[Mapping[str, Any]]) -> str:
    names = ("engine", "against", "concurrency", "rate", "metric", "better", "median", "low", "high", "effect")
    return table(names, [[ratio[name] for name in names] for ratio in ratios])
