"""Continued training with and without replay: what is learned of the new, and what is forgotten of the old.

The default model goes on reading something that it never saw: service manuals of machines that do not exist, made by
a fixed seed. The old is Temper's corpus of English prose and Python's own documentation, as held-out text of the
quantizer's proof. Both runs read the same new tokens; the one with replay reads old ones beside them.

    make prove forgetting ARGS='--steps 40'
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from prove_quantize import held_out

import report
from temper import api

STATE = Path(__file__).parent.parent / "build" / "prove" / "forgetting"
SEED, CHARS = 0, 1200
PARTS = ("valve", "rotor", "relay", "gasket", "sensor", "clutch", "pump", "fuse", "bearing", "nozzle")
FAULTS = ("hums", "leaks", "overheats", "stalls", "trips", "flickers", "drifts", "jams")
CURES = ("vent it at {b} kPa", "turn it {b} steps back", "replace it by part {c}-{b}", "let it cool for {b} minutes",
         "set its gain to {b}", "clean it with solvent {c}")  # fmt: skip


def manuals(count: int, seed: int) -> list[str]:
    """Texts with a language of their own: what a machine does is cured by what its number says, always the same way."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        lines = [f"# Service manual of the Orvel {rng.randrange(100, 999)}\n"]
        while sum(map(len, lines)) < CHARS:
            part, fault = rng.choice(PARTS), rng.choice(FAULTS)
            a = rng.randrange(10, 99)
            cure = CURES[(a + len(part)) % len(CURES)].format(b=7 * a % 90 + 10, c="KLMNP"[a % 5])
            lines.append(f"When {part} {a} {fault}, {cure}. Then read register {a * 3}: it must show {a * 3 % 64}.\n")
        found.append("".join(lines))
    return found


def pieces(text: str) -> list[str]:
    return [text[at : at + CHARS] for at in range(0, len(text) - CHARS, CHARS)]


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return str(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="without replay; with it as many more as its share asks")
    parser.add_argument("--share", type=float, default=0.3)
    given = parser.parse_args()
    folder = STATE / f"{given.steps}-{given.share}"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"new": write(folder / "new.jsonl", manuals(1200, SEED)),
             "old": write(folder / "old.jsonl", pieces(held_out(480_000)))}  # fmt: skip
    results = {name: trained(name, given, folder, files) for name in ("without replay", "with replay")}
    report.write("forgetting", "Continued training with and without replay", body(results, given),
                 {"results": results, "steps": given.steps, "share": given.share})  # fmt: skip
    low, high = (results["with replay"]["replay"]["interval"], results["without replay"]["replay"]["interval"])
    return 0 if low[1] < high[0] else 1


def trained(name: str, given: argparse.Namespace, folder: Path, files: dict[str, str]) -> dict[str, Any]:
    """What one run measured; kept, so that a proof that was broken off goes on."""
    kept = folder / f"{name}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    # The share that is hardly one stands for none: forgetting is measured on the same held-out texts.
    share = given.share if name == "with replay" else 1e-9
    steps = round(given.steps / (1 - share))
    recipe = {
        "out": str(folder / name.replace(" ", "-")), "seed": SEED,
        "data": {"train": [files["new"]], "validation_share": 0.05},
        "replay": {"files": [files["old"]], "share": share},
        "optimizer": {"learning_rate": 2e-4},
        "schedule": {"steps": steps},
        "batch": {"batch_size": 4, "micro_batch": 4, "context_length": 512},
        "evaluation": {"every": steps, "examples": 48},
    }  # fmt: skip
    done = api.train(recipe, watch=lambda line: print(name, line["step"], f"{line['loss']:.3f}", flush=True))
    measured = done["step"]["measured"]
    found = {"steps": steps, "replay": measured["replay"], "new": done["history"][-1]["validation"],
             "first_loss": done["history"][0]["loss"]}  # fmt: skip
    kept.write_text(json.dumps(found))
    shutil.rmtree(recipe["out"])
    return found


def body(results: dict[str, Any], given: argparse.Namespace) -> str:
    rows = []
    for name, found in results.items():
        replay = found["replay"]
        low, high = replay["interval"]
        rows.append({"run": name, "steps": found["steps"], "new text, nats a token": f"{found['new']:.3f}",
                     "old text before": f"{replay['before']:.3f}", "after": f"{replay['after']:.3f}",
                     "forgotten": f"{replay['forgotten']:+.3f} ({low:+.3f} … {high:+.3f})",
                     "old texts": replay["examples"]})  # fmt: skip
    return "\n\n".join([
        f"The default model, every weight trained on made-up service manuals; with replay {given.share:.0%} of the "
        "tokens are from the old text. Loss of held-out texts in nats a token; intervals of 95 %, paired by text.",
        report.table(rows),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
