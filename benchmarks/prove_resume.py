"""Training killed again and again at random moments ends in the same bits as training left alone.

    make prove resume                          one process, then two with PowerSGD; ten kills each
    make prove resume ARGS='--kills 3'

A small random llama is trained by `temper refine train`, once undisturbed, and once killed (SIGKILL) at moments drawn
uniformly over what an undisturbed run takes from its first step on, and started again each time. Compared are every
figure of the loss curve and every byte of the weights, last and best.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.tiny_models import write_tiny_folder

RECIPE = """
model = "{folder}/model"
out = "{out}"
seed = 5
[data]
train = ["train.jsonl"]
validation_share = 0.2
[optimizer]
learning_rate = 3e-3
[schedule]
steps = 60
[batch]
batch_size = 8
micro_batch = 2
context_length = 64
[regularization]
dropout = 0.1
[evaluation]
every = 10
[saving]
every = 3
[compute]
threads = 1
{compute}
"""
KINDS = {
    "one process, fp32": 'precision = "fp32"',
    "two processes, PowerSGD, bf16": 'precision = "bf16"\nprocesses = 2\ncompression = "powersgd"',
}


def main() -> None:
    """Train, kill, compare, and write the report."""
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    rows = [proven(kind, compute, given.kills, given.seed) for kind, compute in KINDS.items()]
    body = f"{report.table(rows)}\n\nKills that came after a run had ended are not counted.\n"
    report.write("resume", "Training killed at random moments", body, {"rows": rows})
    print(report.table(rows))
    sys.exit(0 if all(row["same curve"] and row["same bytes"] for row in rows) else 1)


def proven(kind: str, compute: str, kills: int, seed: int) -> dict[str, Any]:
    """One kind of run, undisturbed and killed."""
    drawn = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_folder(folder / "model", tie_word_embeddings=True)
        turns = [(f"{a} + {b}", f"{a + b} and on") for a in range(12) for b in range(8)]
        records = [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
            for asked, said in turns
        ]
        (folder / "train.jsonl").write_text("\n".join(json.dumps(record) for record in records))
        for out in ("whole", "killed"):
            text = RECIPE.format(folder=folder, out=out, compute=compute)
            (folder / f"{out}.toml").write_text(text)
        whole = begun(folder, "whole")
        first = wait_for_step(folder / "whole", 1, whole)
        whole.wait()
        length_s = time.monotonic() - first
        landed, steps = 0, []
        while landed < kills and not (folder / "killed" / "result.json").exists():
            process = begun(folder, "killed")
            before = len(lines(folder / "killed"))
            wait_for_step(folder / "killed", before + 1, process)
            time.sleep(drawn.uniform(0, length_s / kills))
            process.send_signal(signal.SIGKILL)
            landed += process.wait() == -signal.SIGKILL
            steps.append(len(lines(folder / "killed")))
        if not (folder / "killed" / "result.json").exists():
            begun(folder, "killed").wait()
        weights = [
            [(folder / out / which / "model.safetensors").read_bytes() for which in ("last", "best")]
            for out in ("whole", "killed")
        ]
        curves = [
            [{key: value for key, value in line.items() if key != "seconds"} for line in lines(folder / out)]
            for out in ("whole", "killed")
        ]
    return {
        "run": kind,
        "kills": landed,
        "killed after step": ", ".join(map(str, steps)),
        "same curve": curves[0] == curves[1],
        "same bytes": weights[0] == weights[1],
    }


def begun(folder: Path, out: str) -> subprocess.Popen[bytes]:
    """The command, started or gone on with."""
    command = [sys.executable, "-m", "temper.cli", "refine", "train", str(folder / f"{out}.toml"), "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines(run: Path) -> list[dict[str, Any]]:
    """The history, without a line that a kill cut short."""
    path = run / "history.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> float:
    """When the history has that many lines, or the process has ended."""
    while len(lines(run)) < step and process.poll() is None:
        time.sleep(0.02)
    return time.monotonic()


if __name__ == "__main__":
    main()
