"""One real study on the native engine: from the untuned default profile to a proven gain, or to none.

Sixteen people with short questions at once, throughput, answers guarded by perplexity, every serving knob that the
profile declares. Or six people with pages to read, and how long the slowest pauses between two tokens are. It may be
killed; the next call goes on with the last study.

    make prove tune_native                         # thirty minutes of measuring
    make prove tune_native ARGS='--workload pages --objective "itl p95"'
    make prove tune_native ARGS='--command "vllm serve MODEL --dtype bfloat16"'    # a server of another make
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import report
from temper import api
from temper.measure.workload.lengths import Uniform
from temper.measure.workload.schema import Closed, Synthetic, Workload
from temper.tuner.ledger import FILE, Ledger
from temper.tuner.search import Progress

WORKLOADS = {
    "short": Workload(
        name="sixteen people with short questions",
        requests=256,
        warmup=4,
        arrivals=Closed(concurrency=16),
        content=Synthetic(input_tokens=Uniform(low=32, high=96), output_tokens=Uniform(low=16, high=48)),
    ),
    "pages": Workload(
        name="six people with pages to read",
        requests=128,
        warmup=4,
        arrivals=Closed(concurrency=6),
        content=Synthetic(input_tokens=Uniform(low=300, high=600), output_tokens=Uniform(low=48, high=96)),
    ),
}
LEFT_ALONE = ("max_waiting", "evict_above", "batch_invariant")
"""Knobs that are about other things than speed: who is turned away, what is kept, what is promised."""


def tell(now: Progress) -> None:
    """A line for each step."""
    print(f"{now.stage:<10} {now.done:4.0%}  {now.text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="30min")
    parser.add_argument("--workload", choices=WORKLOADS, default="short")
    parser.add_argument("--objective", default="throughput")
    parser.add_argument("--knob", nargs="+", default=(), help="vary these alone")
    parser.add_argument("--block-s", type=float, default=6.0)
    parser.add_argument("--command", help="the command line of another server, in place of the native engine")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    workload = WORKLOADS[args.workload]
    theme = "tune_native" if args.command is None else "tune_imported"
    if args.workload != "short":
        theme += f"_{args.workload}"
    base = api.place()
    where = replace(base, home=Path(base.cache_dir) / "proofs" / theme)
    ledger = Ledger(where.home / FILE)
    running = [entry for entry in ledger.studies() if entry.state == "running"]
    ledger.close()
    profile = api.profile() if args.command is None else api.import_command(args.command).profile
    found = api.tune(
        workload,
        profile,
        objective=args.objective,
        budget=args.budget,
        knobs=tuple(args.knob),
        without=LEFT_ALONE if args.command is None else (),
        seed=args.seed,
        settings={"block_s": args.block_s},
        resume=running[0].id if running else None,
        tell=tell,
        where=where,
    )
    rows = [
        {"field": change["path"], "incumbent": change["before"], "winner": change["after"]}
        for change in (found["winner"] or {"changes": []})["changes"]
    ]
    story = "\n".join(f"{number}. {line}" for number, line in enumerate(found["story"], 1))
    changes = report.table(rows) if rows else "Nothing is proposed."
    body = f"Verdict: **{found['verdict']}**, {found['reason']}.\n\n{story}\n\n{changes}\n\n"
    body += "Every trial, the charts and the winner's profile: `temper tune --resume last --html`."
    page = Path(report.HERE) / f"{theme}.html"
    page.write_text(api.study_page(found), "utf-8")
    kept = {
        name: found[name] for name in ("verdict", "metric", "effect", "interval", "confidence", "num_trials", "wanted")
    }
    report.write(theme, f"A study: {workload.name}", body, kept | {"evidence": found["evidence"]})


if __name__ == "__main__":
    main()
