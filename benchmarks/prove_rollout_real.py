"""Real rollouts over HTTP: fake engines with planted differences, a real server, a real controller.

B 20 % slower, failing 1 % and wrong on 3 % must be rolled back, B 20 % faster promoted. Rollouts that ended are kept in
`build/prove/rollout_real.json`; a run that was ended goes on with the rest.

    make prove rollout_real ARGS='--callers 8'
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from rollout_servers import Callers, Fleet

import report
from temper import api

KEPT = Path(__file__).parent.parent / "build" / "prove" / "rollout_real.json"
SLOW = "echo+ttft:lognormal(1500,0.15)+itl:lognormal(60,0.15)"
"""Pace is compared where the machine's own noise is small beside it."""
PLANTED = {
    "20 % slower": (SLOW, "echo+ttft:lognormal(1800,0.15)+itl:lognormal(72,0.15)", None, "rolled_back"),
    "failing 1 %": ("echo", "echo+error-500%1", None, "rolled_back"),
    "wrong on 3 %": ("echo", "echo+garbage@0%3", None, "rolled_back"),
    "20 % faster": (SLOW, "echo+ttft:lognormal(1250,0.15)+itl:lognormal(50,0.15)", "e2e", "promoted"),
}
"""Name: control, candidate, target, the right end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=8.0, help="for each rollout")
    parser.add_argument("--only", action="append", choices=tuple(PLANTED), help="run it again for the others")
    args = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    for name in args.only or PLANTED:
        if name not in kept:
            kept[name] = one(name, args.callers, 60 * args.minutes)
            done = json.loads(KEPT.read_text()) if KEPT.exists() else {}  # others may have run beside this one
            KEPT.write_text(json.dumps(done | {name: kept[name]}))
    kept |= json.loads(KEPT.read_text())
    if set(kept) != set(PLANTED):
        return
    rows = [kept[name] for name in PLANTED]
    assert all(row["ended"] == row["must"] for row in rows), rows
    body = (
        "One server, one controller, closed-loop callers over HTTP; 5 → 25 → 50 → 100 %, default guardrails at "
        "α = 0.05; the fake engines draw their pace from log-normal distributions.\n\n"
    )
    report.write(
        "rollout_real", "Rollouts over HTTP with planted differences", body + report.table(rows), {"rows": rows}
    )


def one(name: str, callers: int, most_s: float) -> dict[str, object]:
    control, candidate, target, must = PLANTED[name]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "a.toml").write_text(f'[engine]\nkind = "fake"\nmax_sequences = 64\nscript = "{control}"\n')
        (home / "b.toml").write_text(f'[engine]\nkind = "fake"\nmax_sequences = 64\nseed = 5\nscript = "{candidate}"\n')
        fleet = Fleet(home, home / "a.toml")
        try:
            fleet.start_server()
            fleet.start_controller()
            with Callers(fleet.url, callers, max_tokens=4) as asking:
                where = api.place(home=home)
                began = time.time()
                id = api.rollout(
                    home / "b.toml", plan={"target": target, "min_s": 2.0, "max_s": most_s}, where=where
                ).id
                while fleet.store.rollouts.find(id).state == "running" and time.time() < began + most_s + 60:
                    time.sleep(0.5)
            found = fleet.store.rollouts.find(id)
            verdict = found.verdict()
            print(name, found.state, found.reason, flush=True)
            return {
                "candidate": name,
                "must": must,
                "ended": found.state,
                "requests judged": found.judged.get("num_units", 0),
                "seconds": round(time.time() - began),
                "why": found.reason,
                "errors that callers saw": sum(n for kind, n in asking.counts.items() if kind != "ok"),
                "verdict": verdict.verdict,
            }
        finally:
            fleet.stop()


if __name__ == "__main__":
    main()
