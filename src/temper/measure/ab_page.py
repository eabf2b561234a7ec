"""An A/B test as one HTML file: the verdict, effects with their intervals and margins, units, distributions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from temper.measure.ab_verdict import SPREADS
from temper.measure.drawing import Line, chart, definitions, document, table, text

WIDTH, LABEL, RIGHT, ROW = 760, 150, 210, 34
PASS, FAIL, OPEN = "#15803d", "#b91c1c", "#a16207"
OUTCOMES = {"pass": PASS, "fail": FAIL, "inconclusive": OPEN}
MOST_SHOWN = 1.0
"""Effects beyond ±100 % are drawn at the edge."""


def page(found: Mapping[str, Any]) -> str:
    """The whole file for a document of `ab_verdict`."""
    arms = found["arms"]
    parts = [
        f"<h1>B against A: {_badge(found['verdict'])}</h1>",
        f"<p>A is <b>{text(arms['a']['name'])}</b>, B is <b>{text(arms['b']['name'])}</b>.</p>",
        f"<p>{text(found['reason'][:1].upper() + found['reason'][1:])}.</p>",
        _doubts(found),
        forest([{**found, "verdict": _own_outcome(found)}, *found["guardrails"]]),
        _judgements(found),
        *(chart(f"Distribution of {label}", "% of values", f"{label}, ms", _distribution(arms, name))
          for name, label in (("e2e_ms", "end-to-end latency"), ("ttft_ms", "time to first token"),
                              ("itl_ms", "inter-token latency"))),
        *(chart(f"Units: {metric}", found["design"]["unit"], metric, _units(pairs))
          for metric, pairs in found["units"].items()),
        "<h2>Both arms</h2>", _arms(arms),
        definitions(found["definitions"]),
        "<h2>Design and workload</h2><pre>",
        text(json.dumps({name: found[name] for name in ("design", "workload")}, indent=1)), "</pre>",
    ]  # fmt: skip
    return document("temper ab", parts)


def _badge(outcome: str) -> str:
    return f'<span style="color:{OUTCOMES[outcome]}">{text(outcome)}</span>'


def _own_outcome(found: Mapping[str, Any]) -> str:
    """The target's colour is its interval's, whatever the guardrails say."""
    if found["interval"] is None:
        return "inconclusive"
    low, high = found["interval"] if found["better"] == "lower" else [-end for end in reversed(found["interval"])]
    return "pass" if high < 0 else "fail" if low > 0 else "inconclusive"


def _doubts(found: Mapping[str, Any]) -> str:
    lines = []
    for side, arm in found["arms"].items():
        name = f"{side.upper()}, {arm['name']}"
        lines += [f"{name}: {count} requests failed: {kind}: {arm['failure_messages'][kind]}"
                  for kind, count in arm["failures"].items()]  # fmt: skip
        lines += [f"{name}: {note}" for note in arm["notes"]]
    return "".join(f'<p class="doubt">{text(line)}</p>' for line in dict.fromkeys(lines))


def forest(judgements: Sequence[Mapping[str, Any]]) -> str:
    """Effects as dots on their intervals, one row each, 0 in the middle."""
    drawn = [one for one in judgements if one["interval"] is not None and one["effect"] is not None]
    if not drawn:
        return ""
    ends = [min(MOST_SHOWN, abs(end)) for one in drawn for end in one["interval"]]
    reach = max(0.02, *ends) * 1.1
    inner = WIDTH - LABEL - RIGHT

    def x(value: float) -> float:
        share: float = max(-reach, min(reach, value)) / reach
        return LABEL + inner * (share + 1) / 2

    bottom = ROW * len(drawn) + 10
    rows = [f'<line class="axis" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{bottom}"/>']
    for tick in (-reach, -reach / 2, 0.0, reach / 2, reach):
        rows.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{100 * tick:+.2g} %</text>')
    for number, one in enumerate(drawn):
        y, colour = ROW * number + ROW / 2 + 4, OUTCOMES[one["verdict"]]
        low, high = one["interval"]
        said = f"{100 * one['effect']:+.2f} % [{100 * low:+.2f}, {100 * high:+.2f}]"
        rows.append(
            f'<text x="{LABEL - 8}" y="{y + 4:.1f}" text-anchor="end">{text(one["metric"])}</text>'
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{x(one["effect"]):.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
            f'<text x="{WIDTH - RIGHT + 10}" y="{y + 4:.1f}">{said}</text>'
        )
    return (
        "<figure><figcaption>Effect of B against A, with its interval</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {bottom + 24}" width="{WIDTH}" role="img" aria-label="Effects with intervals">'
        f"{''.join(rows)}</svg></figure>"
    )


def _judgements(found: Mapping[str, Any]) -> str:
    rows = []
    for one in ({**found, "verdict": _own_outcome(found)}, *found["guardrails"]):
        interval = "–" if one["interval"] is None else " … ".join(f"{100 * end:+.2f}\u00a0%" for end in one["interval"])
        effect = "–" if one["effect"] is None else f"{100 * one['effect']:+.2f}\u00a0%"
        rows.append((one["metric"], one["verdict"], one["claim"], effect, interval, one["num_units"], one["method"],
                     one["reason"] if one["metric"] != found["metric"] else ""))  # fmt: skip
    head = ("metric", "verdict", "claim", "effect", f"{found['confidence']:.0%} interval", "units", "method", "why")
    return table(head, rows)


def _distribution(arms: Mapping[str, Any], name: str) -> list[Line]:
    return [
        (side.upper(), [(float(x), y) for x, y in enumerate(arm["distribution"][name])])
        for side, arm in arms.items()
        if arm["distribution"][name]
    ]


def _units(pairs: Sequence[Sequence[float | None]]) -> list[Line]:
    return [
        (side, [(float(number), value) for number, pair in enumerate(pairs, 1) if (value := pair[index]) is not None])
        for index, side in enumerate("AB")
    ]


def _arms(arms: Mapping[str, Any]) -> str:
    rows = []
    for side, arm in arms.items():
        spreads = [arm[name][part] for name in SPREADS for part in ("p50", "p99")]
        rows.append((f"{side.upper()} {arm['name']}", arm["model"], f"{arm['completed']}/{arm['requests']}",
                     arm["output_tokens_mean"], arm["output_tokens_per_s"], *spreads))  # fmt: skip
    head = ("arm", "model", "done", "tokens an answer", "output tokens/s",
            *(f"{name}.{part}" for name in SPREADS for part in ("p50", "p99")))  # fmt: skip
    return table(head, rows)
