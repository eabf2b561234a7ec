"""What the choice of tokens does to a text, and what it costs: the decoding rows of docs/claims.md.

Stories on the same drawn subjects under each setting, item by item beside the base (temperature 0.7, nothing else):
repetition, diversity, cohesion and surprise (`measure.quality.writing` says what each measures). Then speed: sampled
beside greedy decoding, and 1 to 8 streams, each in turns (ABBA) in one run.

    make prove decoding
    make prove decoding ARGS='--minutes 4'     a part; the same again goes on where it stopped
    make prove decoding ARGS=--fresh           from the beginning
    make prove decoding ARGS='--minutes 0 --report'

Every arm is kept in the cache folder as soon as it is measured. The report is written when all are there, or with
--report of those that are, and names the others.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

from kept import Kept

import report
from temper import api
from temper.asking import ask, collect
from temper.engines.base import Engine
from temper.measure.quality.evaluate import Settings, evaluate
from temper.measure.quality.intervals import paired_mean
from temper.measure.quality.texts import sentences
from temper.measure.quality.writing import WritingSuite
from temper.measure.stats.ratio import paired
from temper.types import Sampling, TemperatureSchedule

SEED, STORIES, STORY_TOKENS, STREAMS = 20261125, 12, 96, 8
CONFIDENCE = 0.95
FIGURES = ("repetition", "distinct_2", "cohesion", "surprise", "words")
BASE = "T 0.7"

ARMS: dict[str, Sampling] = {
    BASE: Sampling(temperature=0.7),
    "T 0.3": Sampling(temperature=0.3),
    "T 1.0": Sampling(temperature=1.0),
    "T 1.2": Sampling(temperature=1.2),
    "linear 1.0 → 0.4": Sampling(temperature_schedule=TemperatureSchedule("linear", (), 1.0, 0.4, STORY_TOKENS)),
    "cosine 1.0 → 0.4": Sampling(temperature_schedule=TemperatureSchedule("cosine", (), 1.0, 0.4, STORY_TOKENS)),
    "paragraph 1.0 → 0.4": Sampling(temperature_schedule=TemperatureSchedule("paragraph", (), 1.0, 0.4, 32)),
    "T 0.9": Sampling(temperature=0.9),
    **{
        f"T 0.9, top-p {top_p}, top-k {top_k}": Sampling(temperature=0.9, top_p=top_p, top_k=top_k)
        for top_p in (0.88, 0.95)
        for top_k in (30, 50)
    },
    "T 0.9, top-p 0.92, top-k 50, penalty 1.2": Sampling(
        temperature=0.9, top_p=0.92, top_k=50, repetition_penalty=1.2
    ),
}  # fmt: skip
NEUTRAL = Sampling(top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0)
"""What an arm leaves open is off, whatever the checkpoint says."""

SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "mixed": {"temperature": 0.9, "top_k": 50, "top_p": 0.92},
    "mixed, penalty": {"temperature": 0.9, "top_k": 50, "top_p": 0.92, "repetition_penalty": 1.2},
}
BATCHES = (1, 2, 4, 8)
ROUNDS, SPEED_TOKENS = 4, 32
GRACEFUL_LIMIT = 64
SETTINGS = [SEED, STORIES, STORY_TOKENS, ROUNDS, SPEED_TOKENS, GRACEFUL_LIMIT]
"""What was measured under others is no part of this proof."""


async def story_arm(engine: Engine, sampling: Sampling) -> dict[str, Any]:
    """Every story's figures, by id."""
    given = {name: getattr(sampling, name) for name in Sampling.__slots__ if getattr(sampling, name) not in (None, ())}
    whole = Sampling(**{**{n: getattr(NEUTRAL, n) for n in ("top_p", "top_k", "min_p", "repetition_penalty")}, **given})
    settings = Settings(whole, max_tokens=STORY_TOKENS, concurrency=STREAMS)
    found = await evaluate(engine, WritingSuite(logprobs=True), SEED, STORIES, settings=settings)
    return {result.id: dict(result.values) for result in found.results}


async def graceful(engine: Engine) -> dict[str, Any]:
    """Stories with a limit, ended by it or where a sentence ends: tokens, seconds, and whether the end is whole."""
    found: dict[str, Any] = {}
    items = WritingSuite().items(SEED, STORIES)
    for name, on in (("off", False), ("on", True)):
        rows = []
        for item in items:
            assert item.request.messages is not None
            begin = time.monotonic()
            answer = await collect(
                engine.generate(
                    ask(item.request.messages, max_tokens=GRACEFUL_LIMIT, graceful_end=on, temperature=0.7,
                        seed=item.request.sampling.seed)
                )
            )  # fmt: skip
            last = sentences(answer.text)[-1] if sentences(answer.text) else ""
            whole = last.endswith((".", "!", "?", '"', "”"))
            rows.append([answer.usage.completion_tokens, time.monotonic() - begin, whole])
        found[name] = rows
    return found


async def tokens_per_s(engine: Engine, streams: int, seed: int, **sampling: Any) -> tuple[float, float]:
    """(tokens/s of all streams together, seconds a request) with `streams` requests at once."""
    requests = [
        ask(f"Story {seed}-{index}. Once upon a time", max_tokens=SPEED_TOKENS, ignore_eos=True, seed=index, **sampling)
        for index in range(streams)
    ]
    begin = time.monotonic()

    async def one(index: int) -> float:
        await collect(engine.generate(requests[index]))
        return time.monotonic() - begin

    times = await asyncio.gather(*map(one, range(streams)))
    return streams * SPEED_TOKENS / max(times), statistics.fmean(times)


async def speed(engine: Engine) -> dict[str, Any]:
    """Samplers at 8 streams and batches at greedy, in turns: rounds of [tokens/s, seconds a request]."""
    found: dict[str, Any] = {name: [] for name in SAMPLERS} | {f"{n} streams": [] for n in BATCHES}
    await tokens_per_s(engine, STREAMS, -1, temperature=0.0)  # warm up
    for number in range(ROUNDS):
        order = list(found) if number % 2 == 0 else list(reversed(found))
        for name in order:
            if name in SAMPLERS:
                found[name].append(await tokens_per_s(engine, STREAMS, number, **SAMPLERS[name]))
            else:
                found[name].append(await tokens_per_s(engine, int(name.split()[0]), number, temperature=0.0))
    return found


async def measure(kept: Kept, minutes: float) -> bool:
    """Measure what is missing; False when time ran out first."""
    end = time.monotonic() + 60 * minutes
    arms = {name: (lambda engine, sampling=sampling: story_arm(engine, sampling)) for name, sampling in ARMS.items()}
    jobs = {BASE: arms[BASE], "speed": speed, **arms, "graceful end": graceful}
    missing = [name for name in jobs if name not in kept.found]
    if missing:
        engine = api.build(api.profile("default", in_process=True))
        await engine.start()
        try:
            for name in missing:
                if time.monotonic() > end:
                    return False
                kept.add(name, await jobs[name](engine))
        finally:
            await engine.stop()
    return True


def changed(base: dict[str, Any], arm: dict[str, Any], figure: str) -> tuple[str, dict[str, Any]]:
    """The arm's mean, and its change from the base as a share, with the interval of the paired difference."""
    ids = [name for name in base if figure in base[name] and figure in arm.get(name, {})]
    a, b = [base[name][figure] for name in ids], [arm[name][figure] for name in ids]
    mean_a, mean_b = statistics.fmean(a), statistics.fmean(b)
    interval = paired_mean([y - x for x, y in zip(a, b, strict=True)], CONFIDENCE, None)
    data = {"base": mean_a, "arm": mean_b, "change": mean_b / mean_a - 1 if mean_a else None, "num_pairs": len(ids),
            "interval": None if interval is None else [interval.low / mean_a, interval.high / mean_a]}  # fmt: skip
    if interval is None or data["change"] is None:
        return f"{mean_b:.3f}", data
    low, high = data["interval"]
    return f"{mean_b:.3f} ({data['change']:+.0%}; {low:+.0%} … {high:+.0%})", data


def story_tables(kept: Kept) -> tuple[str, dict[str, Any]]:
    rows, data = [], {}
    for name in (name for name in ARMS if name in kept.found):
        cells = {figure: changed(kept.found[BASE], kept.found[name], figure) for figure in FIGURES}
        data[name] = {figure: found for figure, (_, found) in cells.items()}
        shown = {figure: f"{found['arm']:.3f}" if name == BASE else text for figure, (text, found) in cells.items()}
        rows.append({"setting": name, **shown})
    return report.table(rows), data


def speed_tables(kept: Kept) -> tuple[str, dict[str, Any]]:
    found = kept.found["speed"]
    rows, data = [], {}
    for names, base in ((list(SAMPLERS), "greedy"), ([f"{n} streams" for n in BATCHES], "1 streams")):
        for name in names:
            rates = [rate for rate, _ in found[name]]
            times = [seconds for _, seconds in found[name]]
            more = paired([rate for rate, _ in found[base]], rates)
            longer = paired([seconds for _, seconds in found[base]], times)
            assert more is not None
            assert longer is not None
            data[name] = {"tokens_per_s": statistics.median(rates), "throughput_ratio": 1 + more.effect,
                          "throughput_interval": more.interval, "latency_ratio": 1 + longer.effect,
                          "latency_interval": longer.interval, "rounds": more.rounds}  # fmt: skip
            rows.append({"arm": name, "tokens/s": statistics.median(rates), f"throughput ÷ {base}": _ratio(more),
                         f"time of a request ÷ {base}": _ratio(longer)})  # fmt: skip
    names = list(dict.fromkeys(name for row in rows for name in row))
    return report.table([{name: row.get(name, "") for name in names} for row in rows]), data


def _ratio(ratio: Any) -> str:
    low, high = ratio.interval
    return f"{1 + ratio.effect:.3f} ({1 + low:.3f}–{1 + high:.3f})"


def graceful_lines(kept: Kept) -> tuple[str, dict[str, Any]]:
    off, on = kept.found["graceful end"]["off"], kept.found["graceful end"]["on"]

    def mean(rows: Sequence[Sequence[float]], column: int) -> float:
        return statistics.fmean(row[column] for row in rows)

    shorter = paired([row[0] for row in off], [row[0] for row in on])
    faster = paired([row[1] for row in off], [row[1] for row in on])
    assert shorter is not None
    assert faster is not None
    data = {"tokens_ratio": 1 + shorter.effect, "time_ratio": 1 + faster.effect, "tokens_interval": shorter.interval,
            "time_interval": faster.interval, "whole_off": mean(off, 2), "whole_on": mean(on, 2)}  # fmt: skip
    text = (
        f"With a limit of {GRACEFUL_LIMIT} tokens, `graceful_end` on ÷ off: tokens {_ratio(shorter)}, "
        f"time of a request {_ratio(faster)}. Answers that end with a whole sentence: "
        f"{mean(off, 2):.0%} off, {mean(on, 2):.0%} on."
    )
    return text, data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    kept = Kept(api.place().cache_dir / "proofs" / "decoding.jsonl", SETTINGS, fresh=given.fresh)
    if not asyncio.run(measure(kept, given.minutes)) and not given.report:
        print("time is up; the same command goes on from here")
        return
    stories, story_data = story_tables(kept)
    ends, end_data = graceful_lines(kept) if "graceful end" in kept.found else ("Not measured yet.", None)
    speeds, speed_data = speed_tables(kept)
    left = [name for name in ARMS if name not in kept.found]
    missing = f"Not measured yet: {'; '.join(left)}.\n\n" if left else ""
    body = f"""Default model, {STORIES} stories of at most {STORY_TOKENS} tokens a setting, seed {SEED}.
The same subjects and sampling seeds everywhere. In parentheses: change from `{BASE}`, and the 95 % interval of the
paired difference (Student's t over stories), as a share of the base's mean.

{stories}

{missing}- `repetition`: share of 4-grams of words that stood in the text before.
- `distinct_2`: different word pairs ÷ all.
- `cohesion`: mean cosine of the word counts of neighbouring sentences; it is *lexical*, and rises as well where a text
  repeats itself. `surprise`: mean −log p of the chosen tokens under the model's own distribution, nats.

## Ending gracefully

{ends}

## Speed

{STREAMS} streams for the samplers; {SPEED_TOKENS} tokens a request; {ROUNDS} rounds in turns. Ratios are geometric
means over rounds with 95 % intervals.

{speeds}"""
    data = {"stories": story_data, "graceful_end": end_data, "speed": speed_data}
    report.write("decoding", "What decoding settings do to text and to speed", body, data)


if __name__ == "__main__":
    main()
