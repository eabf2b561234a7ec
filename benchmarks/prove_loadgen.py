"""The load generator under test: does it hold the load, does it agree with another make, does it see stalls?

1. Capacity: streams from a server that costs nearly nothing, above 5,000 tokens/s in all; what the generator saw,
   and what it took of a core.
2. Agreement: aiperf and `temper bench` in turns against `temper serve --engine fake:words` with TTFT 50 ms and
   ITL 10 ms; means and medians side by side, to be within 5 %.
3. Coordinated omission: the server stands still for 3 of 20 seconds; what an open loop sees, and what a naive
   closed loop sees of it.

    make prove loadgen ARGS='--aiperf FOLDER_FROM_peers/aiperf.sh/env/bin/aiperf'
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launched import free_port
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import report
import temper
from temper.measure.quality.perplexity import corpus

HERE = Path(__file__).parent
USERS, REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS = 4, 120, 32, 64


@contextmanager
def running(*command: str) -> Iterator[str]:
    """A server, ended by its own pid; gives its URL."""
    port = free_port()
    process = subprocess.Popen([sys.executable, *command, "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                sys.exit(f"{command} ended early")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def mock(**options: float) -> Any:
    given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return running(str(HERE / "mock_upstream.py"), *given)


# -- 1 -----------------------------------------------------------------------------------------------


def capacity() -> list[dict[str, Any]]:
    rows = []
    for processes in (1, 2):
        with mock(ttft_ms=50, itl_ms=20) as url:
            load = {"concurrency": (120,), "requests": 480, "input_tokens": 8, "output_tokens": 100, "warmup": 8}
            (run,) = temper.bench(url=url, processes=processes, load=load)["runs"]
        rows.append(
            {
                "processes": processes,
                "tokens/s": run["output_tokens_per_s"],
                "ITL p50 ms (20 sent)": run["itl_ms"]["p50"],
                "ITL p99 ms": run["itl_ms"]["p99"],
                "share of a core": run["generator"]["cpu_share"],
                "loop lag p99 ms": run["generator"]["loop_lag_p99_ms"],
                "says it is the bottleneck": "; ".join(run["generator"]["reasons"]) or "no",
            }
        )
    return rows


# -- 2 -----------------------------------------------------------------------------------------------


def tokenizer(folder: Path) -> Path:
    """A small tokenizer in files: aiperf makes its prompts with one, and ours must need no network."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    made.train_from_iterator(
        [corpus()], trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, special_tokens=special)
    )
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def theirs(program: Path, url: str, names: Path, folder: Path, seed: int) -> dict[str, float]:
    """aiperf's figures. Its inter-token latency is ours of the name TPOT: (E2E - TTFT) / (n - 1) of a request."""
    lengths = {"--synthetic-input-tokens-mean": INPUT_TOKENS, "--synthetic-input-tokens-stddev": 0,
               "--output-tokens-mean": OUTPUT_TOKENS, "--output-tokens-stddev": 0}  # fmt: skip
    load = {"--concurrency": USERS, "--request-count": REQUESTS, "--warmup-request-count": 4, "--random-seed": seed}
    what = {"--model": "fake", "--url": url, "--endpoint-type": "completions", "--extra-inputs": "ignore_eos:true",
            "--tokenizer": names, "--artifact-dir": folder, "--ui": "none"}  # fmt: skip
    # One worker and no side errands: on two cores its own processes are most of the noise it would measure.
    command = [str(program), "profile", "--streaming", "--use-server-token-count", "--no-gpu-telemetry",
               "--no-server-metrics", "--workers-max", "1", "--record-processors", "1"]  # fmt: skip
    command += [str(part) for pair in (what | load | lengths).items() for part in pair]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.rglob("profile_export_aiperf.json"))
    if not found:
        sys.exit(f"aiperf gave no figures:\n{(ran.stdout + ran.stderr)[-3000:]}")
    data = json.loads(found[-1].read_text())
    latencies = {"TTFT": "time_to_first_token", "TPOT": "inter_token_latency", "E2E": "request_latency"}
    figures = {f"{name} {key} ms": data[metric]["avg" if key == "mean" else key]
               for name, metric in latencies.items() for key in ("mean", "p50")}  # fmt: skip
    return figures | {"output tokens/s": data["output_token_throughput"]["avg"]}


def ours(url: str, seed: int) -> dict[str, float]:
    load = {"concurrency": (USERS,), "requests": REQUESTS, "warmup": 4, "seed": seed, "input_tokens": INPUT_TOKENS,
            "output_tokens": OUTPUT_TOKENS}  # fmt: skip
    (run,) = temper.bench(url=url, load=load)["runs"]
    if run["failures"]:
        sys.exit(f"requests failed: {run['failure_messages']}")
    figures = {f"{name.upper()} {key} ms": run[f"{name}_ms"][key]
               for name in ("ttft", "tpot", "e2e") for key in ("mean", "p50")}  # fmt: skip
    return figures | {"output tokens/s": run["output_tokens_per_s"]}


def agreement(program: Path, rounds: int) -> tuple[list[dict[str, Any]], bool]:
    seen: dict[str, list[dict[str, float]]] = {"temper": [], "aiperf": []}
    serve = ("-m", "temper.cli", "serve", "--engine", "fake:words", "--set", "ttft_ms=50", "--set", "itl_ms=10")
    with tempfile.TemporaryDirectory() as scratch, running(*serve) as url:
        names = Path(scratch) / "tokenizer"
        names.mkdir()
        tokenizer(names)
        for number in range(rounds):
            for make in ("temper", "aiperf") if number % 2 == 0 else ("aiperf", "temper"):
                folder = Path(scratch) / f"round-{number}"
                found = ours(url, 100 + number) if make == "temper" else theirs(program, url, names, folder, number)
                seen[make].append(found)
    rows = []
    for name in seen["temper"][0]:
        pairs = [(a[name], b[name]) for a, b in zip(seen["temper"], seen["aiperf"], strict=True)]
        ratios = [a / b for a, b in pairs]
        rows.append(
            {
                "figure": name,
                "temper": statistics.median(a for a, _ in pairs),
                "aiperf": statistics.median(b for _, b in pairs),
                "ratio, median": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
        )
    return rows, all(abs(row["ratio, median"] - 1) <= 0.05 for row in rows)


# -- 3 -----------------------------------------------------------------------------------------------


def omission() -> list[dict[str, Any]]:
    loads: dict[str, dict[str, Any]] = {
        "open loop, 20 requests/s": {"rate": (20.0,), "requests": 400},
        "closed loop, 1 user (naive)": {"concurrency": (1,), "requests": 280},
    }
    rows = []
    for name, load in loads.items():
        with mock(ttft_ms=50, itl_ms=1, stall_after=8, stall_for=3) as url:
            (run,) = temper.bench(url=url, load={**load, "input_tokens": 8, "output_tokens": 10, "warmup": 0})["runs"]
        slow = sum(value > 150 for value in run["distribution"]["ttft_ms"])
        rows.append({"load": name, "requests": run["requests"], "TTFT p50 ms": run["ttft_ms"]["p50"],
                     "p90": run["ttft_ms"]["p90"], "p99": run["ttft_ms"]["p99"], "max": run["ttft_ms"]["max"],
                     "share above 150 ms": f"{slow} %"})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--aiperf", type=Path, help="aiperf's program (peers/aiperf.sh prints it); without it part 2 is missing"
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    data: dict[str, Any] = {"capacity": capacity()}
    parts = ["## Capacity\n\n120 streams of a token every 20 ms, 6,000 tokens/s at most. The server, the generator and "
             "whatever else runs share the machine's cores.\n\n" + report.table(data["capacity"])]  # fmt: skip
    agrees = True
    if args.aiperf is None:
        parts.append("## Agreement\n\nMISSING: no --aiperf was given.")
    else:
        data["agreement"], agrees = agreement(args.aiperf.resolve(), args.rounds)
        parts.append(
            f"## Agreement with aiperf\n\nThe fake engine behind our server (TTFT 50 ms, ITL 10 ms), {USERS} users, "
            f"{REQUESTS} requests of {INPUT_TOKENS} + {OUTPUT_TOKENS} tokens, {args.rounds} rounds in turns. All "
            f"medians of ratios within 5 %: **{'yes' if agrees else 'NO'}**.\n\n" + report.table(data["agreement"])
        )
    data["omission"] = omission()
    parts.append(
        "## Coordinated omission\n\nThe server stands still from second 8 to 11 of about 20: 15 % of the time.\n\n"
        + report.table(data["omission"])
    )
    report.write("loadgen", "The load generator, tested", "\n\n".join(parts), data)
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
