"""Figures of a run from its outcomes: latency percentiles, rates, goodput, failures. Each defined in words.

Pure arithmetic: no clock, no engine. `DEFINITIONS` goes into every result, so that a figure never travels
without its meaning.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from temper.measure.loadgen import Outcome
from temper.measure.stats.percentile import CLAIM_CONFIDENCE, REPORT_CONFIDENCE, nearest_rank, values_needed
from temper.measure.stats.proportion import at_most
from temper.measure.workload.schema import Targets

PERCENTILES = (50, 90, 99)

DEFINITIONS: dict[str, str] = {
    "ttft_ms": "Time to first token: from when the request was due (open loop) or sent (closed loop) to the first "
    "piece of output that is not empty, thinking included.",
    "ttfat_ms": "Time to first answer token: the same to the first piece of the answer, thinking left out.",
    "itl_ms": "Inter-token latency: time between successive pieces of output of a request, the first one excluded. A "
    "piece is what arrives together; `tokens_per_piece` says how many tokens that is on average.",
    "tpot_ms": "Time per output token of a request: (e2e - ttft) / (output tokens - 1); none for one token.",
    "e2e_ms": "From when the request was due or sent to the end of its stream.",
    "sample": "Percentiles are over complete answers alone; failures are counted by kind beside them.",
    "percentile": "Nearest rank: the smallest value that at least p % do not exceed. Null with a `reason` when the "
    f"sample cannot carry it: P needs n values with 1 - p^n >= {REPORT_CONFIDENCE:.0%} (P50 5, P90 29, P99 299).",
    "duration_s": "From the first request due to the end of the last one, ramp-up and tail included.",
    "output_tokens_per_s": "Tokens generated for complete answers / duration, thinking included.",
    "total_tokens_per_s": "Prompt and output tokens of complete answers / duration.",
    "prefill_tokens_per_s": "Prompt tokens of complete answers that came from no prefix cache / the time in which at "
    "least one of them waited for its first token. Queueing is inside, so under load it is a lower bound.",
    "goodput_per_s": "Complete answers within every limit of the workload's SLO / duration.",
    "slo": f"Requests that fail or break a limit count as misses. Pass or fail is said at {CLAIM_CONFIDENCE:.0%} "
    "confidence (exact binomial bounds), else inconclusive: with no miss P90, P95, P99 need 44, 90, 459 requests.",
    "rss_bytes": "Resident memory of the server's processes, the highest sum seen in the run (shared pages count "
    "once per process); pss_bytes: proportional, at the end of the run. Null where the processes are not known.",
    "generator": "cpu_share of one core and loop lag of the load generator itself; `is_bottleneck` says that these "
    "figures describe the generator rather than the server.",
}


def spread(values_s: Sequence[float]) -> dict[str, Any]:
    """Percentiles of values in seconds, as milliseconds; those the sample cannot carry are None with a `reason`."""
    ordered = sorted(values_s)
    found: dict[str, Any] = {"count": len(ordered)}
    lacking = []
    for percent in PERCENTILES:
        needed = values_needed(percent)
        enough = len(ordered) >= needed
        found[f"p{percent}"] = _ms(nearest_rank(ordered, percent)) if enough else None
        if not enough:
            lacking.append(f"p{percent} needs {needed} values")
    found["mean"] = _ms(sum(ordered) / len(ordered)) if ordered else None
    found["max"] = _ms(ordered[-1]) if ordered else None
    if lacking:
        found["reason"] = f"{', '.join(lacking)}, but there are {len(ordered)}"
    return found


def figures(outcomes: Sequence[Outcome], slo: Targets) -> dict[str, Any]:
    """All figures of a run, ready for JSON."""
    whole = [outcome for outcome in outcomes if outcome.failure is None]
    spoken = [outcome for outcome in whole if outcome.arrivals_s]
    duration = _duration(outcomes)
    num_output = sum(outcome.output_tokens for outcome in whole)
    num_prompt = sum(outcome.prompt_tokens for outcome in whole)
    num_pieces = sum(len(outcome.arrivals_s) for outcome in whole)
    return {
        "requests": len(outcomes),
        "completed": len(whole),
        "duration_s": round(duration, 6),
        "requests_per_s": _rate(len(whole), duration),
        "output_tokens_per_s": _rate(num_output, duration),
        "total_tokens_per_s": _rate(num_prompt + num_output, duration),
        "prefill_tokens_per_s": _prefill_rate(spoken),
        "prompt_tokens": num_prompt,
        "cached_tokens": sum(outcome.cached_tokens for outcome in whole),
        "output_tokens": num_output,
        "reasoning_tokens": sum(outcome.reasoning_tokens for outcome in whole),
        "tokens_per_piece": round(num_output / num_pieces, 3) if num_pieces else None,
        "ttft_ms": spread([ttft_s(outcome) for outcome in spoken]),
        "ttfat_ms": spread([o.answer_s - o.due_s for o in spoken if o.answer_s is not None]),
        "itl_ms": spread([gap for outcome in spoken for gap in gaps_s(outcome)]),
        "tpot_ms": spread([value for outcome in spoken if (value := tpot_s(outcome)) is not None]),
        "e2e_ms": spread([outcome.end_s - outcome.due_s for outcome in whole]),
        "failures": dict(sorted(Counter(o.failure for o in outcomes if o.failure is not None).items())),
        "failure_messages": _messages(outcomes),
        **_goodput(outcomes, duration, slo),
    }


def distribution(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Every hundredth part of each latency in ms (0 to 100 %), for drawing; a drawing is no claim about a tail."""
    whole = [outcome for outcome in outcomes if outcome.failure is None and outcome.arrivals_s]
    values = {
        "ttft_ms": [ttft_s(outcome) for outcome in whole],
        "itl_ms": [gap for outcome in whole for gap in gaps_s(outcome)],
        "e2e_ms": [outcome.end_s - outcome.due_s for outcome in whole],
    }
    return {name: _quantiles(sorted(found)) for name, found in values.items()}


def _quantiles(ordered: Sequence[float]) -> list[float]:
    if not ordered:
        return []
    return [round(nearest_rank(ordered, percent) * 1000, 3) for percent in range(101)]


def ttft_s(outcome: Outcome) -> float:
    """Time to first token of an outcome that has output."""
    return outcome.arrivals_s[0] - outcome.due_s


def gaps_s(outcome: Outcome) -> list[float]:
    """Times between successive pieces."""
    at = outcome.arrivals_s
    return [later - earlier for earlier, later in itertools.pairwise(at)]


def tpot_s(outcome: Outcome) -> float | None:
    """Time per output token after the first; None where there is only one."""
    if outcome.output_tokens < 2 or not outcome.arrivals_s:
        return None
    return (outcome.end_s - outcome.arrivals_s[0]) / (outcome.output_tokens - 1)


def is_good(outcome: Outcome, slo: Targets) -> bool:
    """Complete and within every limit."""
    if outcome.failure is not None:
        return False
    tpot = tpot_s(outcome)
    measured = (
        (slo.ttft_ms, ttft_s(outcome) if outcome.arrivals_s else outcome.end_s - outcome.due_s),
        (slo.tpot_ms, tpot if tpot is not None else 0.0),
        (slo.e2e_ms, outcome.end_s - outcome.due_s),
    )
    return all(limit is None or value * 1000 <= limit for limit, value in measured)


def _goodput(outcomes: Sequence[Outcome], duration: float, slo: Targets) -> dict[str, Any]:
    if slo.ttft_ms is None and slo.tpot_ms is None and slo.e2e_ms is None:
        return {"goodput_per_s": None, "slo": None}
    good = sum(is_good(outcome, slo) for outcome in outcomes)
    judged = at_most(len(outcomes) - good, len(outcomes), 1 - slo.percentile / 100)
    return {
        "goodput_per_s": _rate(good, duration),
        "slo": {
            "limits": slo.model_dump(mode="json", exclude_none=True),
            "good": good,
            "verdict": judged.verdict,
            "miss_share": round(judged.share, 6),
            "interval": [round(bound, 6) for bound in judged.interval],
            "confidence": judged.confidence,
        },
    }


def _duration(outcomes: Sequence[Outcome]) -> float:
    if not outcomes:
        return 0.0
    return max(outcome.end_s for outcome in outcomes) - min(outcome.due_s for outcome in outcomes)


def _prefill_rate(spoken: Sequence[Outcome]) -> float | None:
    """Uncached prompt tokens over the union of the intervals in which a first token was awaited."""
    waiting, until = 0.0, float("-inf")
    for begin, first in sorted((outcome.due_s, outcome.arrivals_s[0]) for outcome in spoken):
        waiting += max(0.0, first - max(begin, until))
        until = max(until, first)
    num_tokens = sum(max(0, outcome.prompt_tokens - outcome.cached_tokens) for outcome in spoken)
    return _rate(num_tokens, waiting) if num_tokens else None


def _messages(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """One example of what was said for each kind of failure."""
    return {outcome.failure: outcome.message for outcome in reversed(outcomes) if outcome.failure is not None}


def _rate(amount: float, seconds: float) -> float | None:
    return round(amount / seconds, 3) if seconds > 0 else None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)
