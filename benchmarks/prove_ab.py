"""`temper ab` on the real engine: a profile against itself, again and again, and against one with a real difference.

A/A at α = 0.01: the same profile on both sides, each time with requests of its own; neither better nor worse may be
found. Then the default against itself with one sequence at a time, from engine starts: worse must be found. Comparisons
that ended are kept in `build/prove/ab.json`; a run that was ended goes on with the rest.

    make prove ab ARGS='--repeats 5'
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import report
from temper import api

KEPT = Path(__file__).parent.parent / "build" / "prove" / "ab.json"
ALPHA = 0.01
LOAD: dict[str, Any] = {"input_tokens": "16-48", "output_tokens": "16-48", "concurrency": (4,)}
UNTOLD = {"failures": None, "ttft_ms.p50": None, "output_tokens": None}
"""The target alone is judged: one verdict a comparison, so that α is its own."""


def compared(name: str, **more: Any) -> dict[str, Any]:
    """One comparison as a row."""
    found = api.ab("default", "default", tell=lambda text: print(f"{name}: {text}", flush=True), **more)
    return {
        "arms": name,
        "metric": found["metric"],
        "effect": found["effect"],
        "interval": found["interval"],
        "units": f"{found['design']['num_units']} {found['design']['unit']}",
        "verdict": found["verdict"],
        "found": not found["interval"][0] <= 0 <= found["interval"][1],
    }


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as people read it."""
    low, high = row["interval"]
    told = {"effect": f"{row['effect']:+.1%}", "interval": f"{low:+.1%} … {high:+.1%}"}
    return {**row, **told, "found": "a difference" if row["found"] else "none"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="of A/A")
    parser.add_argument("--units", type=int, default=12, help="pairs of blocks in each A/A")
    parser.add_argument("--requests", type=int, default=12, help="in a block")
    args = parser.parse_args()
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    common = {"guardrails": UNTOLD, "confidence": 1 - ALPHA, "requests": args.requests}
    planned: dict[str, dict[str, Any]] = {
        f"A/A {number}": {"units": args.units, "load": {**LOAD, "seed": number}} for number in range(args.repeats)
    }
    planned["one sequence at a time"] = {
        "units": 6, "restart": True, "load": LOAD, "changes_b": {"max_sequences": 1},
    }  # fmt: skip
    for name, more in planned.items():
        if name not in rows:
            rows[name] = compared(name, **common, **more)
            KEPT.write_text(json.dumps(rows))
    false = sum(row["found"] for name, row in rows.items() if name.startswith("A/A"))
    planted = rows["one sequence at a time"]
    assert not false, rows
    assert planted["found"], planted
    assert planted["verdict"] == "fail", planted
    body = (
        f"The default model in process, {LOAD['concurrency'][0]} requests at once, blocks in turns (ABBA), "
        f"intervals at {1 - ALPHA:.0%}. Of {args.repeats} comparisons of the default with itself {false} found a "
        "difference; the planted one was found.\n\n"
    )
    body += report.table([shown(row) for row in rows.values()])
    report.write("ab", "A profile against itself and against a worse one", body, {"rows": list(rows.values())})


if __name__ == "__main__":
    main()
