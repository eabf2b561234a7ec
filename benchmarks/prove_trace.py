"""Where the time of a run of the default model goes, beside the shares that the guide printed (spec M2).

One trace of a server of our own at each load, in one run. Resumes nothing: it is over in a few minutes.
"""

from __future__ import annotations

import argparse
from typing import Any

import report
import temper

GUIDE = {"tokenizer": 12, "attention": 45, "MLP": 28, "sampling": 15}
"""Per cent, as printed."""
OURS = {
    "tokenizer": ("tokenizer",),
    "attention": ("linear: attention projections", "attention, prefill", "attention, decode"),
    "MLP": ("linear: MLP",),
    "head (logits)": ("linear: head",),
    "sampling": ("sampling",),
    "HTTP and wires": ("HTTP", "wire to the worker", "handing over"),
}


def shares(run: dict[str, Any]) -> dict[str, float]:
    by_stage = {stage["stage"]: 100 * stage["share"] for stage in run["stages"]}
    found = {name: sum(by_stage.get(stage, 0.0) for stage in stages) for name, stages in OURS.items()}
    return {**found, "the rest": 100 - sum(found.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--input-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=128)
    asked = parser.parse_args()
    load = {
        "concurrency": tuple(asked.concurrency), "requests": asked.requests, "warmup": 1,
        "input_tokens": asked.input_tokens, "output_tokens": asked.output_tokens,
    }  # fmt: skip
    found = temper.trace(load=load, tell=print)
    told = {run["concurrency"]: shares(run) for run in found["runs"]}
    rows = [
        {"share of the work, %": name, "the guide": GUIDE.get(name, "–")}
        | {f"{users} at once": one[name] for users, one in told.items()}
        for name in next(iter(told.values()))
    ]
    limits = [
        {
            "at once": run["concurrency"], "phase": phase["phase"], "seconds of ops": phase["seconds"],
            "GB/s": phase["bytes_per_s"] / 1e9, "of bandwidth, %": 100 * phase["bandwidth_share"],
            "Gops/s": phase["operations_per_s"] / 1e9, "of peak arithmetic, %": 100 * phase["compute_share"],
            "cores that others used": run["others_cores"],
        }
        for run in found["runs"]
        for phase in run["phases"]
    ]  # fmt: skip
    machine = found["limits"]
    body = (
        f"`{found['model']}` behind a server of its own, {asked.input_tokens} tokens in, {asked.output_tokens} out, "
        f"{asked.requests} requests a load. Attention holds its projections.\n\n{report.table(rows)}\n\n"
        f"The machine right after: {machine['read_bytes_per_s'] / 1e9:.1f} GB/s read from "
        f"{machine['working_set_bytes'] / 1e6:.0f} MB, {machine['int8_operations_per_s'] / 1e9:.0f} int8 and "
        f"{machine['f32_operations_per_s'] / 1e9:.0f} float32 Gops/s "
        f"({machine['isa']}, {machine['threads']} threads).\n\n"
        f"{report.table(limits)}\n\n"
    )
    for run in found["runs"]:
        run["steps"].pop("first")
        body += "".join(f"- {run['concurrency']} at once: {one['finding']}: {one['advice']}\n" for one in run["advice"])
    path = report.write("trace", "Where the time goes", body, found)
    print(path.read_text().split("<details>")[0])


if __name__ == "__main__":
    main()
