"""The load generator under test: does it hold the load, does it agree with another make, does it see stalls?

1. Capacity: streams from a server that costs nearly nothing, above 5,000 tokens/s in all; what the generator saw,
   and what it took of a core.
2. Agreement: aiperf and `temper bench` in turns against `temper serve --engine fake:words` with TTFT 50 ms and
   ITL 10 ms; means and medians side by side, to be within 5 %. Then against the default model, both with recorded
   conversations, each against what the server saw of it: to be within the spread of the repeats.
3. Coordinated omission: the server stands still for 3 of 20 seconds; what an open loop sees, and what a naive
   closed loop sees of it.

    make prove loadgen ARGS='--aiperf FOLDER_FROM_peers/aiperf.sh/env/bin/aiperf'
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launched import Launched, free_port
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import report
import temper
from temper.measure.quality.perplexity import corpus
from temper.measure.workload.schema import ShareGpt, Workload

HERE = Path(__file__).parent
USERS, REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS = 4, 120, 32, 64
WORDS = sorted(set(corpus().split()))


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


def theirs(program: Path, url: str, folder: Path, seed: int, what: dict[str, Any]) -> dict[str, float]:
    """aiperf's figures. Its inter-token latency is ours of the name TPOT: (E2E - TTFT) / (n - 1) of a request."""
    load = {"--concurrency": USERS, "--request-count": REQUESTS, "--random-seed": seed,
            "--output-tokens-mean": OUTPUT_TOKENS, "--output-tokens-stddev": 0}  # fmt: skip
    where = {"--url": url, "--extra-inputs": "ignore_eos:true", "--artifact-dir": folder, "--ui": "none"}
    # One worker and no side errands: on two cores its own processes are most of the noise it would measure.
    command = [str(program), "profile", "--streaming", "--use-server-token-count", "--no-gpu-telemetry",
               "--no-server-metrics", "--workers-max", "1", "--record-processors", "1"]  # fmt: skip
    command += [str(part) for pair in (what | where | load).items() for part in pair]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.rglob("profile_export_aiperf.json"))
    if not found:
        sys.exit(f"aiperf gave no figures:\n{(ran.stdout + ran.stderr)[-3000:]}")
    data = json.loads(found[-1].read_text())
    latencies = {"TTFT": "time_to_first_token", "TPOT": "inter_token_latency", "E2E": "request_latency"}
    figures = {f"{name} {key} ms": data[metric]["avg" if key == "mean" else key]
               for name, metric in latencies.items() for key in ("mean", "p50")}  # fmt: skip
    return figures | {"output tokens/s": data["output_token_throughput"]["avg"]}


def ours(url: str, seed: int, what: dict[str, Any]) -> dict[str, float]:
    load = {"concurrency": (USERS,), "requests": REQUESTS, "seed": seed, "output_tokens": OUTPUT_TOKENS, **what}
    (run,) = temper.bench(url=url, load=load)["runs"]
    if run["failures"]:
        sys.exit(f"requests failed: {run['failure_messages']}")
    figures = {f"{name.upper()} {key} ms": run[f"{name}_ms"][key]
               for name in ("ttft", "tpot", "e2e") for key in ("mean", "p50")}  # fmt: skip
    return figures | {"output tokens/s": run["output_tokens_per_s"]}


def on_the_fake(program: Path, rounds: int) -> list[dict[str, Any]]:
    """Both in turns against the fake engine, each with prompts of its own making."""
    serve = ("-m", "temper.cli", "serve", "--engine", "fake:words", "--set", "ttft_ms=50", "--set", "itl_ms=10")
    with tempfile.TemporaryDirectory() as scratch, running(*serve) as url:
        names = Path(scratch) / "tokenizer"
        names.mkdir()
        their_load = {"--model": "fake", "--endpoint-type": "completions", "--tokenizer": tokenizer(names),
                      "--synthetic-input-tokens-mean": INPUT_TOKENS, "--synthetic-input-tokens-stddev": 0,
                      "--warmup-request-count": 4}  # fmt: skip
        return in_turns(
            program, url, rounds, Path(scratch), lambda _: ({"input_tokens": INPUT_TOKENS, "warmup": 4}, their_load)
        )


def on_a_real_engine(program: Path, rounds: int) -> tuple[list[dict[str, Any]], bool]:
    """Both in turns against the default model, with recorded conversations of the same making, new ones each time.

    It computes on one core: the other one is for the loads, of which one takes much more than the other.
    """
    serve = ("-m", "temper.cli", "serve", "--set", "compute.threads=1")
    with tempfile.TemporaryDirectory() as scratch, running(*serve) as url:
        names = Path(scratch) / "tokenizer"
        names.mkdir()
        tokenizer(names)

        def texts(make: str, number: int) -> list[str]:
            """No two alike: a prefix that the other one has asked for would be cached."""
            draws = (random.Random(f"{make}-{number}-{at}") for at in range(REQUESTS + 4))
            return [" ".join(draw.choices(WORDS, k=INPUT_TOKENS)) for draw in draws]

        def loads(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
            talks, prompts = (Path(scratch) / f"{name}-{number}.jsonl" for name in ("talks", "prompts"))
            answer = "tell " * OUTPUT_TOKENS  # its length is how much is asked for
            lines = [{"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]}
                     for text in texts("temper", number)]  # fmt: skip
            talks.write_text("".join(json.dumps(line) + "\n" for line in lines))
            prompts.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts("aiperf", number)))
            content = ShareGpt(path=str(talks), max_output_tokens=OUTPUT_TOKENS)
            # No warm-up on either side: the server would count it.
            return {"workload": Workload(content=content), "warmup": 0}, {
                "--model": "default", "--endpoint-type": "chat", "--tokenizer": names,
                "--input-file": prompts, "--custom-dataset-type": "single_turn",
            }  # fmt: skip

        rows = in_turns(program, url, rounds, Path(scratch), loads, against_server=True)
    judged = [row for row in rows if "server" in row["figure"]]
    return rows, all(abs(row["ratio, median"] - 1) <= max(row["spread of repeats"], 0.05) for row in judged)


def in_turns(
    program: Path,
    url: str,
    rounds: int,
    scratch: Path,
    loads: Callable[[int], tuple[dict[str, Any], dict[str, Any]]],
    *,
    against_server: bool = False,
) -> list[dict[str, Any]]:
    """A row a figure. `loads` gives what our load and theirs are in a round; `against_server`: each figure that the
    server has too as a multiple of what it saw of the same requests."""
    seen: dict[str, list[dict[str, float]]] = {"temper": [], "aiperf": []}
    for number in range(rounds):
        our_load, their_load = loads(number)
        for make in ("temper", "aiperf") if number % 2 == 0 else ("aiperf", "temper"):
            folder = scratch / f"round-{number}"
            before = server_sums(url)
            found = (ours(url, 100 + number, our_load) if make == "temper"
                     else theirs(program, url, folder, number, their_load))  # fmt: skip
            if against_server:
                after = server_sums(url)
                means = {name: 1000 * (after[name][0] - total) / (after[name][1] - count)
                         for name, (total, count) in before.items()}  # fmt: skip
                found |= {f"{name} ÷ the server's": found[name] / mean for name, mean in means.items()}
            seen[make].append(found)
    rows = []
    for name in seen["temper"][0]:
        pairs = [(a[name], b[name]) for a, b in zip(seen["temper"], seen["aiperf"], strict=True)]
        ratios = [a / b for a, b in pairs]
        sides = [[pair[at] for pair in pairs] for at in (0, 1)]
        rows.append(
            {
                "figure": name,
                "temper": statistics.median(sides[0]),
                "aiperf": statistics.median(sides[1]),
                "ratio, median": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "spread of repeats": max((max(side) - min(side)) / statistics.median(side) for side in sides),
            }
        )
    return rows


def server_sums(url: str) -> dict[str, tuple[float, float]]:
    """(seconds, how many) that the server has counted, by our names of the figures."""
    names = {"TTFT mean ms": "vllm:time_to_first_token_seconds", "TPOT mean ms": "vllm:inter_token_latency_seconds",
             "E2E mean ms": "vllm:e2e_request_latency_seconds"}  # fmt: skip
    server = Launched(0, url)
    return {name: (server.metric(f"{metric}_sum"), server.metric(f"{metric}_count")) for name, metric in names.items()}


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
    parser.add_argument("--only-real", action="store_true", help="the agreement on a real engine alone")
    args = parser.parse_args()
    if args.only_real and args.aiperf is None:
        parser.error("--only-real compares with aiperf: name it by --aiperf")
    if args.only_real:
        rows, agrees = on_a_real_engine(args.aiperf.resolve(), args.rounds)
        text = real_part(rows, agrees, args)
        report.write("loadgen_real", "The load generator beside aiperf on a real engine", text, {"real": rows})
        sys.exit(0 if agrees else 1)
    data: dict[str, Any] = {"capacity": capacity()}
    parts = ["## Capacity\n\n120 streams of a token every 20 ms, 6,000 tokens/s at most. The server, the generator and "
             "whatever else runs share the machine's cores.\n\n" + report.table(data["capacity"])]  # fmt: skip
    agrees = True
    if args.aiperf is None:
        parts.append("## Agreement\n\nMISSING: no --aiperf was given.")
    else:
        program = args.aiperf.resolve()
        data["fake"] = on_the_fake(program, args.rounds)
        near = all(abs(row["ratio, median"] - 1) <= 0.05 for row in data["fake"])
        data["real"], within = on_a_real_engine(program, args.rounds)
        agrees = near and within
        parts += [
            f"## Agreement with aiperf\n\nThe fake engine behind our server (TTFT 50 ms, ITL 10 ms), {USERS} users, "
            f"{REQUESTS} requests of {INPUT_TOKENS} + {OUTPUT_TOKENS} tokens, {args.rounds} rounds in turns. All "
            f"medians of ratios within 5 %: **{'yes' if near else 'NO'}**.\n\n{report.table(data['fake'])}",
            f"### On a real engine\n\n{real_part(data['real'], within, args)}",
        ]
    data["omission"] = omission()
    parts.append(
        "## Coordinated omission\n\nThe server stands still from second 8 to 11 of about 20: 15 % of the time.\n\n"
        + report.table(data["omission"])
    )
    report.write("loadgen", "The load generator, tested", "\n\n".join(parts), data)
    sys.exit(0 if agrees else 1)


def real_part(rows: list[dict[str, Any]], agrees: bool, args: argparse.Namespace) -> str:
    return (
        f"The default model on one core behind our server, {USERS} users, {REQUESTS} conversations of {INPUT_TOKENS} "
        f"words + {OUTPUT_TOKENS} tokens each time, drawn alike for both, {args.rounds} rounds in turns. aiperf's own "
        "processes take their part of the two cores from the engine, so each is held against what the server saw of "
        "the same requests. Every median of those ratios within the spread of either's repeats, or 5 %: "
        f"**{'yes' if agrees else 'NO'}**.\n\n{report.table(rows)}"
    )


if __name__ == "__main__":
    main()
