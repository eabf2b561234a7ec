"""A trace as one HTML file: advice, a request's life, work by stage, roofline, steps. No script, no network.

Draws what `run.trace` found as inline SVG. Figures stand in the page as text too, so nothing depends on seeing colours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from temper.measure.drawing import definitions, document, table, text
from temper.measure.trace import stages

WIDTH = 860
COLOURS: Mapping[str, str] = {
    stages.HTTP: "#7e22ce", stages.WIRE: "#a855f7", stages.TOKENIZING: "#be185d", stages.SCHEDULING: "#94a3b8",
    stages.BUILDING: "#64748b", stages.PROJECTIONS: "#0369a1", stages.ATTENTION_PREFILL: "#0e7490",
    stages.ATTENTION_DECODE: "#06b6d4", stages.MLP: "#1d4ed8", stages.HEAD: "#3b82f6", stages.OTHER_LINEAR: "#60a5fa",
    stages.OTHER_OPS: "#0f766e", stages.CALLING: "#57534e", stages.SAMPLING: "#c2410c", stages.DETOKENIZING: "#db2777",
    stages.PUBLISHING: "#a16207", stages.HANDING_OVER: "#ca8a04",
    "tokenizer": "#be185d", "queue": "#94a3b8", "prefill": "#0e7490", "decode": "#1d4ed8", "mixed": "#c2410c",
    "around": "#7e22ce",
}  # fmt: skip
MORE_STYLE = """
.advice { border-left: 4px solid #15803d; padding-left: .8rem; margin: .5rem 0 } .advice b { font-weight: 600 }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .15rem .8rem; align-items: center }
.bars i { display: block; height: 1em; border-radius: 2px; min-width: 1px }
figure.wide { display: block }
"""
MOST_STEPS = 240


def page(found: Mapping[str, Any]) -> str:
    """The whole file for a result of `run.trace`."""
    parts = [
        f"<style>{MORE_STYLE}</style><h1>Trace: {text(found['model'])}</h1>",
        _machine(found),
        *(_run(found, run) for run in found["runs"]),
        definitions(found["definitions"]),
        "<h2>Workload</h2><pre>", text(json.dumps(found["workload"], indent=1)), "</pre>",
    ]  # fmt: skip
    return document("temper trace", parts)


def _machine(found: Mapping[str, Any]) -> str:
    limits = found["limits"]
    if limits is None:
        return f'<p class="doubt">No limits of the machine: {text(found["limits_reason"])}.</p>'
    return (
        f"<p>Measured right after: {limits['threads']} threads read {limits['read_bytes_per_s'] / 1e9:.1f} GB/s from "
        f"{limits['working_set_bytes'] / 1e6:.0f} MB (the size of the weights) and do "
        f"{limits['int8_operations_per_s'] / 1e9:.0f} int8, {limits['bf16_operations_per_s'] / 1e9:.0f} bf16 or "
        f"{limits['f32_operations_per_s'] / 1e9:.0f} float32 Gops/s with {text(limits['isa'])}.</p>"
    )


def _run(found: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    load = f"{run['concurrency']} at once" if run["concurrency"] is not None else "open loop"
    speed = f", {run['output_tokens_per_s']:g} output tokens/s" if run["output_tokens_per_s"] else ""
    doubts = [f"{count} requests failed: {kind}" for kind, count in run["failures"].items()]
    doubts += [f"not told: {one['what']}: {one['reason']}" for one in run["not_told"]]
    return "".join((
        f"<h2>{text(load)}</h2>",
        f"<p>{run['completed']} of {run['requests']} requests in {run['wall_s']:.1f} s{speed}.</p>",
        *(f'<p class="advice"><b>{text(one["finding"])}</b>: {text(one["advice"])}</p>' for one in run["advice"]),
        *(f'<p class="doubt">{text(line)}</p>' for line in doubts),
        _life(run["request_ms"]),
        _work(run["stages"], run["work_s"]),
        _roofline(run["stages"], found["limits"]),
        _steps(run["steps"]),
        _table(run["stages"], run["phases"]),
    ))  # fmt: skip


# -- pictures ------------------------------------------------------------------------------------------


def _life(times: Mapping[str, float | None]) -> str:
    """One request's life as one bar."""
    total = times["total"]
    told = [(name, value) for name, value in times.items() if name != "total" and value is not None]
    if not total or not told:
        return ""
    drawn, x = [], 0.0
    for name, value in told:
        width = WIDTH * value / total
        drawn.append(
            f'<rect x="{x:.1f}" y="0" width="{max(width, 0.5):.1f}" height="34" fill="{COLOURS[name]}">'
            f"<title>{name}: {value:.1f} ms</title></rect>"
        )
        if width > 70:
            drawn.append(f'<text x="{x + 6:.1f}" y="22" style="fill:#fff">{name} {value:.0f}</text>')
        x += width
    said = ", ".join(f"{name} {value:.1f}" for name, value in told)
    return (
        f'<figure class="wide"><figcaption>A request: {total:.0f} ms</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} 36" width="{WIDTH}" role="img" aria-label="A request\'s life">{"".join(drawn)}'
        f"</svg><p>{said} ms</p></figure>"
    )


def _work(found: Sequence[Mapping[str, Any]], work_s: float) -> str:
    """Every stage as a bar, in the order in which a request meets them."""
    if not found:
        return ""
    longest = max(stage["share"] for stage in found) or 1.0
    rows = "".join(
        f'<span>{text(stage["stage"])}</span><i style="width:{stage["share"] / longest:.2%};'
        f'background:{COLOURS[stage["stage"]]}"></i><span>{stage["share"]:.1%}</span>'
        for stage in found
    )
    return (
        f'<figure class="wide"><figcaption>{work_s:.2f} s of work</figcaption><div class="bars">{rows}</div></figure>'
    )


def _roofline(found: Sequence[Mapping[str, Any]], limits: Mapping[str, Any] | None) -> str:
    """Operations a second over operations a byte, both logarithmic, under what the machine can do.

    After Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
    """
    points = [
        (stage["stage"], stage["operations_per_s"] / stage["bytes_per_s"], stage["operations_per_s"])
        for stage in found
        if stage["bytes_per_s"] and stage["operations_per_s"]
    ]
    if limits is None or not points:
        return ""
    peaks = (
        ("int8", limits["int8_operations_per_s"]),
        ("bf16", limits["bf16_operations_per_s"]),
        ("float32", limits["f32_operations_per_s"]),
    )
    bandwidth = limits["read_bytes_per_s"]
    left = math.floor(math.log10(min(0.1, *(x for _, x, _ in points))))
    right = math.ceil(math.log10(max(1000.0, *(x for _, x, _ in points))))
    low = math.floor(math.log10(min(y for *_, y in points)))
    high = math.ceil(math.log10(max(peak for _, peak in peaks)))
    inner, height, margin = WIDTH - 300, 320, 60

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - left) / (right - left)
        up = (math.log10(y) - low) / (high - low)
        return margin + inner * across, 16 + (height - 60) * (1 - up)

    drawn = []
    for power in range(left, right + 1):
        x, _ = place(10.0**power, 10.0**low)
        drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="16" y2="{height - 44}"/>')
        drawn.append(f'<text x="{x:.1f}" y="{height - 28}" text-anchor="middle">{10.0**power:g}</text>')
    for power in range(low, high + 1):
        _, y = place(10.0**left, 10.0**power)
        drawn.append(f'<line class="grid" x1="{margin}" x2="{margin + inner}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{margin - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0 ** (power - 9):g}</text>')
    for name, peak in peaks:
        bend = min(max(peak / bandwidth, 10.0**left), 10.0**right)
        begin = max(10.0**left, 10.0**low / bandwidth)
        corners = [place(begin, begin * bandwidth), place(bend, peak), place(10.0**right, peak)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-opacity=".6"/>')
        x, y = place(10.0**right, peak)
        drawn.append(f'<text x="{x - 4:.1f}" y="{y - 5:.1f}" text-anchor="end">{name} {peak / 1e9:.0f} Gops/s</text>')
    for number, (name, intensity, rate) in enumerate(points):
        x, y = place(intensity, rate)
        row = 24 + 20 * number
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{COLOURS[name]}"><title>{text(name)}: {intensity:.1f} '
            f"operations a byte, {rate / 1e9:.1f} Gops/s</title></circle>"
            f'<circle cx="{margin + inner + 16}" cy="{row - 4}" r="6" fill="{COLOURS[name]}"/>'
            f'<text x="{margin + inner + 28}" y="{row}">{text(name)}</text>'
        )
    return (
        '<figure class="wide"><figcaption>Roofline: Gops/s over operations per byte read</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" aria-label="Roofline">{"".join(drawn)}'
        f'<text x="{margin + inner / 2}" y="{height - 8}" text-anchor="middle">operations per byte</text>'
        "</svg></figure>"
    )


def _steps(steps: Mapping[str, Any] | None) -> str:
    """The first steps on a clock: how long, and of how many tokens."""
    if steps is None or not steps["first"]:
        return ""
    shown = steps["first"][:MOST_STEPS]
    begin = shown[0]["began_s"]
    span = max(step["began_s"] + _length(step) for step in shown) - begin
    tallest = math.log2(1 + max(step["prefill_tokens"] + step["decode_tokens"] for step in shown))
    drawn = []
    for step in shown:
        prefill, decode, took = step["prefill_tokens"], step["decode_tokens"], _length(step)
        phase = "mixed" if prefill and decode else "prefill" if prefill else "decode"
        tall = 90 * math.log2(1 + prefill + decode) / tallest
        x, width = WIDTH * (step["began_s"] - begin) / span, max(0.8, WIDTH * took / span - 0.3)
        drawn.append(
            f'<rect x="{x:.2f}" y="{96 - tall:.1f}" width="{width:.2f}" height="{tall:.1f}" fill="{COLOURS[phase]}">'
            f"<title>{prefill} prompt tokens, {decode} decoding, {took * 1000:.2f} ms</title></rect>"
        )
    legend = "".join(
        f'<rect x="{150 * i}" y="116" width="10" height="10" fill="{COLOURS[name]}"/>'
        f'<text x="{150 * i + 16}" y="125">{name}</text>'
        for i, name in enumerate(stages.PHASES)
    )
    return (
        f'<figure class="wide"><figcaption>The first {len(shown)} of {steps["count"]} steps, {span * 1000:.0f} ms; '
        f"height: tokens in the step (logarithmic)</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} 130" width="{WIDTH}" role="img" aria-label="Steps">'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="96" y2="96"/>{"".join(drawn)}{legend}</svg></figure>'
    )


def _length(step: Mapping[str, float]) -> float:
    return sum(value for name, value in step.items() if name not in ("began_s", "prefill_tokens", "decode_tokens"))


# -- figures -------------------------------------------------------------------------------------------


def _table(found: Sequence[Mapping[str, Any]], phases: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    head = ("", "seconds", "share", "GB", "GB/s", "of bandwidth", "Gops", "Gops/s", "of peak arithmetic")
    rows = [_row(stage["stage"], stage, f"{stage['share']:.1%}") for stage in found]
    return table(head, [*rows, *(_row(f"all ops, {phase['phase']}", phase, "") for phase in phases)])


def _row(name: str, rates: Mapping[str, Any], share: str) -> tuple[str, ...]:
    operations = None
    if rates["bytes"] is not None:
        operations = rates["int8_operations"] + rates["bf16_operations"] + rates["f32_operations"]
    return (
        name, f"{rates['seconds']:.3f}", share, _giga(rates["bytes"]), _giga(rates["bytes_per_s"]),
        _percent(rates["bandwidth_share"]), _giga(operations), _giga(rates["operations_per_s"]),
        _percent(rates["compute_share"]),
    )  # fmt: skip


def _giga(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e9:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
