"""The domain recipes on the real model: what each teaches, on held-out questions of its own, beside the untaught model.

Stages that are done are kept under `build/prove/domains`; a run that was ended goes on with the rest. `--steps` teaches
for less than the recipes do, `--minutes` begins no recipe after that.

    make prove domains ARGS='--steps 60 --only finance medicine'
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from prove_r1_mini import row_of

import report
from temper import api

KEPT = Path(__file__).parent.parent / "build" / "prove" / "domains"


def main() -> int:
    names = sorted(name for name in api.courses() if not name.startswith("r1-mini"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="of teaching; as the recipes say where it is not given")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--minutes", type=float, default=180.0)
    given = parser.parse_args()
    changes = [] if given.steps is None else [f"teach.schedule.steps={given.steps}"]
    began, found = time.monotonic(), {}
    for name in given.only:
        if time.monotonic() - began > 60 * given.minutes:
            break
        folder = KEPT / (name if given.steps is None else f"{name}-{given.steps}")
        done = api.course(name, folder, changes, say=lambda text: print(text, file=sys.stderr, flush=True))
        found[name] = {part: done[part] for part in ("about", "table", "seconds")}
    report.write("domains", "Domain recipes on the default model", body(found, given), {"recipes": found})
    return 0 if len(found) == len(given.only) else 3


def body(found: dict[str, Any], given: argparse.Namespace) -> str:
    steps = "as many steps as each says" if given.steps is None else f"{given.steps} steps"
    rows = [{"recipe": name, **row_of(row)} for name, one in found.items() for row in one["table"]["rows"]]
    minutes = {name: sum(one["seconds"].values()) / 60 for name, one in found.items()}
    left = [name for name in given.only if name not in found]
    return "\n\n".join([
        f"SmolLM2-135M, taught by an adapter that is merged, {steps}; greedy answers to held-out questions. Shares "
        "with 95 % intervals (Wilson), gains paired by question (Tango).",
        report.table(rows),
        "Minutes, data and exams counted: " + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()) + ".",
        *([f"Not done when this was written: {', '.join(left)}."] if left else []),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
