"""What a gateway adds: Temper balancing two upstreams, a bare FastAPI proxy and LiteLLM's proxy, in one run in turns.

A mock upstream streams 20 chunks, one every few milliseconds (a whole answer takes as long). Requests come in an open
loop at a fixed rate, and each latency counts from the moment at which the request was due. What is added is the
difference to asking the upstream directly in the same round. LiteLLM is set up by benchmarks/peers/litellm.sh.

Where the machine cannot hold the rate, what is added is a queue and no more a gateway's own; lower rates tell them
apart.

make prove gateway ARGS='--rounds 3 --rates 500 200 100 --peers FOLDER'
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvloop
from gateway.client import Run, load
from gateway.upstream import CHUNKS
from launched import free_port

import report

HERE = Path(__file__).parent
GOAL_MS = {0.5: 1.0, 0.99: 4.0}
BARE_TIMES = {0.5: 1.25, 0.99: 2.0}
"""The same goals as ratios: they were set where a bare FastAPI proxy adds 0.8 and 2 ms."""
GOAL_TIMES = 5.0
LITELLM = """
model_list:
  - model_name: mock
    litellm_params: {{model: openai/mock, api_base: {url}, api_key: none}}
litellm_settings: {{num_retries: 0, request_timeout: 60, set_verbose: false, telemetry: false}}
"""
TEMPER = """
[engine]
kind = "balance"
[[engine.children]]
kind = "openai"
endpoint = "first"
model = "mock"
[[engine.children]]
kind = "openai"
endpoint = "second"
model = "mock"
"""


@contextmanager
def process(command: list[str], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        started = subprocess.Popen(
            command, stdout=file, stderr=file, env=os.environ | environ, start_new_session=True, cwd=HERE
        )
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGTERM)
            try:
                started.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children that live."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid:  # session
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


async def asked(url: str, streams: bool, rate: float, seconds: float) -> Run:
    """Some seconds of the same question, over and over."""
    messages = [{"role": "user", "content": "Say twenty words."}]
    body = json.dumps({"model": "mock", "messages": messages, "stream": streams}).encode()
    return await load(url, "/chat/completions", body, streams=streams, rate=rate, seconds=seconds)


async def until_ready(url: str, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            found = await asked(url, False, 20, 0.1)
            if found.total_ms:
                return
        except OSError:
            pass
        await asyncio.sleep(0.5)
    raise SystemExit(f"nobody answers at {url}:\n{log.read_text(errors='replace')[-2000:]}")


async def until_idle(pids: dict[str, int]) -> None:
    """Wait for gateways that still work off what their own load left behind: it would be the next arm's to suffer."""
    for _ in range(120):
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        await asyncio.sleep(0.5)
        if all(cpu_s(pid) - before[name] < 0.02 for name, pid in pids.items()):
            return
    print("a gateway is still busy after a minute", file=sys.stderr)


def percentile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rates", type=float, nargs="+", default=[500.0, 200.0, 100.0])
    parser.add_argument("--gap-ms", type=float, default=2.0)
    parser.add_argument("--peers", type=Path, default=HERE / "peers")
    given = parser.parse_args()
    litellm = given.peers / "litellm" / "env" / "bin" / "litellm"
    with tempfile.TemporaryDirectory() as scratch:
        found = uvloop.run(prove(Path(scratch), litellm if litellm.exists() else None, given))
    write(found, given, litellm.exists())


Found = dict[str, dict[str, list[Run]]]
"""Runs by mode and arm."""


async def prove(scratch: Path, litellm: Path | None, given: Any) -> dict[float, Found]:
    ports = {name: free_port() for name in ("upstream", "temper", "bare proxy", "LiteLLM")}
    urls = {name: f"http://127.0.0.1:{port}/v1" for name, port in ports.items()}
    home = scratch / "temper"
    home.mkdir()
    (home / "endpoints.toml").write_text("".join(f'[{n}]\nurl = "{urls["upstream"]}"\n' for n in ("first", "second")))
    (scratch / "gateway.toml").write_text(TEMPER)
    (scratch / "litellm.yaml").write_text(LITELLM.format(url=urls["upstream"]))
    logs = {name: scratch / f"{name}.log" for name in ports}
    me = [sys.executable]
    with (
        process([*me, "gateway/upstream.py", str(ports["upstream"]), str(given.gap_ms)], logs["upstream"]),
        process(
            [*me, "-m", "temper.cli", "serve", str(scratch / "gateway.toml"), "--port", str(ports["temper"])],
            logs["temper"],
            XDG_DATA_HOME=str(scratch),
        ) as temper,
        process([*me, "gateway/bare_proxy.py", str(ports["bare proxy"]), urls["upstream"]], logs["bare proxy"]) as bare,
    ):
        pids = {"temper": temper.pid, "bare proxy": bare.pid}
        await until_ready(urls["upstream"], logs["upstream"])
        if litellm is None:
            return await rounds(urls, pids, logs, given)
        command = [str(litellm), "--config", str(scratch / "litellm.yaml"), "--host", "127.0.0.1"]
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONPATH": ""}
        with process([*command, "--port", str(ports["LiteLLM"])], logs["LiteLLM"], **quiet) as other:
            return await rounds(urls, pids | {"LiteLLM": other.pid}, logs, given)


async def rounds(urls: dict[str, str], pids: dict[str, int], logs: dict[str, Path], given: Any) -> dict[float, Found]:
    for name in pids:
        await until_ready(urls[name], logs[name])
    return {rate: await at_rate(rate, urls, pids, given) for rate in given.rates}


async def at_rate(full: float, urls: dict[str, str], pids: dict[str, int], given: Any) -> Found:
    names = ["upstream", *pids]
    found: Found = {mode: {name: [] for name in names} for mode in ("streaming", "not streaming")}
    for number in range(given.rounds + 1):  # the first one warms up
        for mode, arms in found.items():
            for name in names[number % len(names) :] + names[: number % len(names)]:
                await until_idle(pids)
                before = cpu_s(pids[name]) if name in pids else 0.0
                seconds = given.seconds if number else 1.0
                rate = full if number else min(full, 50.0)
                run = await asked(urls[name], mode == "streaming", rate, seconds)
                if name in pids:
                    run.cpu_ms_per_request = 1000 * (cpu_s(pids[name]) - before) / max(1, len(run.total_ms))
                if number:
                    arms[name].append(run)
                    print(
                        f"{full:g}/s, round {number} {mode}, {name}: p50 {percentile(run.total_ms, 0.5):.2f} ms,"
                        f" p99 {percentile(run.total_ms, 0.99):.2f} ms, {run.failures} failures",
                        file=sys.stderr,
                    )
    return found


def added(runs: list[Run], direct: list[Run], what: str, q: float) -> list[float]:
    """What a gateway adds to a percentile, ms, round by round."""
    pairs = zip(runs, direct, strict=True)
    return [percentile(getattr(a, what), q) - percentile(getattr(b, what), q) for a, b in pairs]


def verdicts(found: Found) -> list[dict[str, Any]]:
    """The goals, what came out, and whether that is enough: medians of the rounds, whole answers."""
    rows = []
    for mode, arms in found.items():
        ours = {q: statistics.median(added(arms["temper"], arms["upstream"], "total_ms", q)) for q in GOAL_MS}
        for q, goal_ms in GOAL_MS.items():
            row = {"mode": mode, "goal": f"added p{q * 100:g} ≤ {goal_ms:g} ms", "seen": f"{ours[q]:.2f} ms"}
            rows.append(row | {"met": "yes" if ours[q] <= goal_ms else "NO"})
            bare = statistics.median(added(arms["bare proxy"], arms["upstream"], "total_ms", q))
            row = {"mode": mode, "goal": f"added p{q * 100:g} ≤ {BARE_TIMES[q]:g} × the bare proxy's"}
            row |= {"seen": f"{ours[q] / max(bare, 0.01):.2f} ×"}
            rows.append(row | {"met": "yes" if ours[q] <= BARE_TIMES[q] * bare else "NO"})
        if "LiteLLM" in arms:
            theirs = statistics.median(added(arms["LiteLLM"], arms["upstream"], "total_ms", 0.5))
            times = theirs / max(ours[0.5], 0.01)
            row = {"mode": mode, "goal": f"LiteLLM's added p50 ≥ {GOAL_TIMES:g} × ours"}
            if math.isnan(times):
                row |= {"seen": "no answer from LiteLLM in a whole round", "met": "not told"}
            else:
                row |= {"seen": f"{times:,.0f} ×", "met": "yes" if times >= GOAL_TIMES else "NO"}
            rows.append(row)
    return rows


def figures(found: Found) -> list[dict[str, Any]]:
    """A row an arm."""
    rows = []
    for mode, arms in found.items():
        for name, runs in arms.items():
            row: dict[str, Any] = {"mode": mode, "arm": name}
            for what, label in (("first_ms", "first chunk"), ("total_ms", "whole")):
                for q in (0.5, 0.99):
                    values = added(runs, arms["upstream"], what, q)
                    row[f"{label}, added p{q * 100:g} ms"] = (
                        "–" if mode == "not streaming" and what == "first_ms" else f"{statistics.median(values):.2f}"
                    )
            row["CPU ms a request"] = f"{statistics.median(r.cpu_ms_per_request for r in runs):.2f}"
            row["failures"] = sum(r.failures for r in runs)
            row["requests"] = sum(len(r.total_ms) for r in runs)
            rows.append(row)
    return rows


def write(found: dict[float, Found], given: Any, has_litellm: bool) -> None:
    text = [
        f"Requests in an open loop, {CHUNKS} chunks {given.gap_ms:g} ms apart, {given.rounds} rounds of "
        f"{given.seconds:g} s an arm, in turns; the upstream, the load and one gateway share this machine. Added: the "
        "percentile through the gateway less the percentile without it in the same round, median of the rounds. Temper "
        "is `balance` over two upstreams with all its checks; the bare proxy passes bytes on and looks at nothing. "
        "Latencies count from when a request was due. An arm begins when every gateway is idle.",
        "",
        f"Load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
    ]
    for rate, runs in found.items():
        text += [
            f"## {rate:g} requests a second",
            "",
            report.table(figures(runs)),
            "",
            report.table(verdicts(runs)),
            "",
        ]
    if not has_litellm:
        text.append("LiteLLM was not there: set it up with `benchmarks/peers/litellm.sh FOLDER/litellm`.")
    data = [
        {"rate": rate, "mode": mode, "arm": name, "what": what, "quantile": q}
        | {"added_ms": added(arm, arms["upstream"], what, q)}
        for rate, runs in found.items()
        for mode, arms in runs.items()
        for name, arm in arms.items()
        for what in ("first_ms", "total_ms")
        for q in (0.5, 0.99)
    ]
    report.write("gateway", "What a gateway adds", "\n".join(text), {"figures": data})


if __name__ == "__main__":
    main()
