"""HumanEval by Qwen2.5-Coder 1.5B (Q4_K_M), greedily: our engine and llama.cpp on the same file.

What both write is run against the tasks' tests in the sandbox, and judged task by task (Tango's interval for paired
shares): a kernel that loses quality would lose functions. Both are asked without a penalty for repetition: ours would
take the advice of the model's makers, llama-server knows of none, and a penalty keeps a model from the words of its
task.

    make prove humaneval ARGS='--llama /opt/peers/llama_cpp/build/bin --count 164'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from launched import free_port, launched

import report
from temper import api
from temper.models.sources import fetch

MODEL, SEED, STREAMS, CONTEXT = "qwen2.5-coder-1.5b", 0, 8, 2048


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama", type=Path, required=True, help="the folder of llama-server")
    parser.add_argument("--count", type=int, default=164, help="tasks, drawn by a fixed seed")
    parser.add_argument("--model", default=MODEL)
    given = parser.parse_args()
    file, port = fetch(given.model, api.place().cache_dir).path, free_port()
    command = [str(given.llama / "llama-server"), "-m", str(file), "--port", str(port), "-np", str(STREAMS),
               "-c", str(STREAMS * CONTEXT), "-t", "2", "--no-webui"]  # fmt: skip
    with launched(command, port, timeout_s=180) as server:
        found = api.evaluate(
            given.model, against=server.url, suites=("humaneval",), count=given.count, seed=SEED,
            sampling={"temperature": 0.0, "repetition_penalty": 1.0}, concurrency=STREAMS, in_process=True,
            answers=True, tell=tell,
        )  # fmt: skip
    [suite] = found["suites"]
    report.write("humaneval", "HumanEval beside llama.cpp on the same weights", body(suite, given), {"suite": suite})
    return 0 if suite["verdict"]["verdict"] == "pass" else 1


def tell(what: str, done: int, total: int) -> None:
    if done % 10 == 0:
        print(f"{what} {done}/{total}", flush=True)


def body(suite: dict[str, Any], given: argparse.Namespace) -> str:
    rows = []
    for name, side in (("native", suite), ("llama.cpp", suite["against"])):
        figure = side["metrics"]["pass_at_1"]
        low, high = figure["interval"]
        rows.append({"engine": name, "tasks": figure["num_items"],
                     "pass@1": f"{100 * figure['value']:.1f} % ({100 * low:.1f} … {100 * high:.1f})",
                     "cut off": f"{100 * side['truncation_rate']['value']:.1f} %",
                     "tokens written": side["tokens"]["completion"],
                     "wall clock, s": side["cost"]["wall_s"]})  # fmt: skip
    verdict = suite["verdict"]
    low, high = verdict["interval"]
    texts = {
        name: {item["id"]: item["text"] for item in side["items"]}
        for name, side in (("ours", suite), ("theirs", suite["against"]))
    }
    equal = sum(texts["ours"][key] == texts["theirs"].get(key) for key in texts["ours"])
    return "\n\n".join([
        f"`{given.model}`, greedy without penalties, {STREAMS} at a time, at most 512 tokens an answer, each under its "
        "own reading of the file's chat template.",
        report.table(rows),
        f"Ours less llama.cpp's: {100 * verdict['effect']:+.1f} points ({100 * low:+.1f} … {100 * high:+.1f}), "
        f"**{verdict['verdict']}**: {verdict['reason']}. {equal} of {len(texts['ours'])} answers are the same to the "
        "letter.",
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
