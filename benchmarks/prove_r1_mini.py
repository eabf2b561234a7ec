"""`temper recipe r1-mini` from beginning to end: what base, taught and small model get right, and at what cost.

Stages that are done are kept under `build/prove/r1_mini` (or --out); a run that was ended goes on with the rest.

    make prove r1_mini ARGS='--recipe r1-mini-short'
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import report
from temper import api

KEPT = Path(__file__).parent.parent / "build" / "prove"
GOAL_GAIN, GOAL_KEPT, GOAL_COST = 0.30, 0.90, 0.50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="r1-mini")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--stages", default="")
    args = parser.parse_args()
    found = api.course(
        args.recipe,
        args.out or KEPT / args.recipe,
        args.set,
        stages=tuple(filter(None, args.stages.split(","))),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(f"left: {found['left']}")
    if found["table"] is not None:
        loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        left = f"Not done when this was written: {', '.join(found['left'])}.\n\n" if found["left"] else ""
        note = left + f"Load of the machine when the report was written (1, 5 and 15 minutes): {loads}.\n\n"
        data = {"results": found["results"], "table": found["table"], "seconds": found["seconds"], "changes": args.set}
        report.write("r1_mini", f"temper recipe {args.recipe}", note + body(found), data)


def body(found: dict[str, Any]) -> str:
    results, table = found["results"], found["table"]
    parts = [found["about"] + ".", report.table([row_of(row) for row in table["rows"]])]
    parts += [
        f"Of the taught gain on {suite}, {kept['share']:.0%} is kept ({between(kept['interval'])})."
        for suite, kept in table["kept"].items()
        if kept is not None
    ]
    if "cost" in results:
        cost = results["cost"]
        sides = {name: cost[name]["cpu_s_per_correct_answer"] for name in ("teach", "result")}
        parts.append(
            f"CPU seconds for each right answer, both asked in turns: {sides['teach']:.3g} taught, "
            f"{sides['result']:.3g} result: {cost['ratio']:.0%} "
            f"(by turn {', '.join(f'{ratio:.0%}' for ratio in cost['ratios'])})."
        )
    if "quantize" in results:
        made = results["quantize"]
        parts.append(f"Weights: {made['num_bytes'] / 1e6:.0f} MB, before {made['parent_bytes'] / 1e6:.0f} MB.")
    if "distill" in results:
        measured = results["distill"]["measured"]
        parts.append(
            f"The student keeps the layers {measured['cut']['kept_layers']}. Its loss on held-out examples, nats a "
            f"token: {measured['held_out_clean']:.4f} clean, {measured['held_out_adversarial']:.4f} adversarial."
        )
    if "compare" in results:
        ab = results["compare"]
        parts.append(f"`temper ab`: {ab['verdict']}: {ab['metric']} {ab['effect']:+.0%}; {ab['reason']}.")
    if "canary" in results:
        went = results["canary"]
        parts.append(
            f"Canary over HTTP: {went['state']} after {went['requests_judged']} requests and {went['seconds']:.0f} s "
            f"({went['reason']}); callers saw {went['callers']}, {went['with_thinking']} answers with their thinking "
            "split off."
        )
    parts.append("| stage | minutes |\n|---|---|\n" + "\n".join(
        f"| {name} | {seconds / 60:.1f} |" for name, seconds in found["seconds"].items()))  # fmt: skip
    trained = [
        f"{name} {results[name]['seconds_in_steps'] / 60:.1f} minutes"
        for name in ("teach", "distill")
        if name in results
    ]
    parts.append(
        f"Steps of training took: {', '.join(trained)}. A stage that takes up a finished run counts that alone."
    )
    if "distill" in results:
        parts.append(goals(found))
    return "\n\n".join(parts)


def goals(found: dict[str, Any]) -> str:
    """What was hoped for beside what came."""
    table, first = found["table"], found["table"]["rows"][0]["suite"]
    gain = next(row["gain"] for row in table["rows"] if (row["suite"], row["model"]) == (first, "teach"))
    kept, cost = table["kept"].get(first), found["results"].get("cost", {}).get("ratio")
    rows: list[tuple[str, float | None, bool, str]] = [
        ("gain of the taught model", gain, gain >= GOAL_GAIN, f"≥ {GOAL_GAIN:.0%}"),
        ("share of it that the small one keeps", kept and kept["share"],
         bool(kept and kept["share"] >= GOAL_KEPT), f"≥ {GOAL_KEPT:.0%}"),
        ("its cost for each right answer", cost, bool(cost and cost <= GOAL_COST), f"≤ {GOAL_COST:.0%}"),
    ]  # fmt: skip
    lines = ["| goal | wanted | found | |", "|---|---|---|---|"]
    for name, value, met, goal in rows:
        shown, outcome = ("–", "not measured") if value is None else (f"{value:.0%}", "met" if met else "missed")
        lines.append(f"| {name} | {goal} | {shown} | {outcome} |")
    return "\n".join(lines)


def row_of(row: dict[str, Any]) -> dict[str, str]:
    gain = row.get("gain")
    return {
        "suite": row["suite"],
        "model": row["model"],
        "right": f"{row['value']:.0%} ({between(row['interval'])})",
        "gain over the base": "" if gain is None else f"{100 * gain:+.0f} points ({between(row['gain_interval'])})",
        "cut off": f"{row['truncation_rate'] or 0:.0%}",
        "items": str(row["num_items"]),
    }


def between(interval: list[float] | None) -> str:
    return "–" if interval is None else " … ".join(f"{100 * end:.0f}" for end in interval)


if __name__ == "__main__":
    main()
