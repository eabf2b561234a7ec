"""What would help, said by rules over the figures of a run. Each rule is a threshold and a sentence; no model decides.

The thresholds are where a cause has become worth a person's time: a tenth of all work, a fifth of a request's
time, three fifths of a limit of the machine, a fifth of a core that others take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from temper.measure.trace import stages

NEAR_A_LIMIT = 0.6
LARGE_WORK = 0.1
LARGE_ATTENTION = 0.25
LARGE_WAIT = 0.2
SHARED_CORES = 0.2

Advice = dict[str, str]
"""`about`, `finding` (what the figures say), `advice` (what follows)."""

INTERPRETER = (
    stages.SCHEDULING, stages.BUILDING, stages.CALLING, stages.PUBLISHING, stages.HANDING_OVER, stages.DETOKENIZING,
)  # fmt: skip
"""What the engine does around the model's arithmetic."""


def advise(run: Mapping[str, Any]) -> list[Advice]:
    """The advice for a run of `trace.run`, most weighty first; empty where nothing stands out."""
    found: list[Advice] = []
    for rule in RULES:
        found += [{"about": about, "finding": finding, "advice": advice} for about, finding, advice in rule(run)]
    return found


Said = Iterator[tuple[str, str, str]]


def _neighbours(run: Mapping[str, Any]) -> Said:
    if _is_shared(run):
        yield (
            "machine",
            f"other programs kept {run['others_cores']:.1f} cores busy meanwhile",
            "that is in all of these times: trace again when they rest",
        )


def _waiting(run: Mapping[str, Any]) -> Said:
    times = run["request_ms"]
    queue, total = times["queue"], times["total"]
    if queue is not None and total and queue >= LARGE_WAIT * total:
        yield (
            "queue",
            f"requests wait {queue:.0f} of their {total:.0f} ms",
            "raise batching.max_sequences or kv.budget_bytes where there is memory, add replicas, or let fewer in",
        )


def _limits(run: Mapping[str, Any]) -> Said:
    for phase in run["phases"]:
        memory, compute, name = phase["bandwidth_share"], phase["compute_share"], phase["phase"]
        if memory is None or compute is None:
            continue
        if memory >= NEAR_A_LIMIT and memory >= compute:
            yield (
                name,
                f"{_named(name)} is at {memory:.0%} of memory bandwidth",
                "only smaller weights or speculation can help"
                if name == "decode"
                else "more tokens in a step read the weights less often (batching.max_step_tokens)",
            )
        elif compute >= NEAR_A_LIMIT:
            yield (
                name,
                f"{_named(name)} is at {compute:.0%} of peak arithmetic",
                "only fewer tokens (shared prefixes, shorter prompts) or more cores can help",
            )
        elif not _is_shared(run):
            yield (
                name,
                f"{_named(name)} is at {memory:.0%} of memory bandwidth and {compute:.0%} of peak arithmetic",
                "the machine has room: more sequences in a step or faster kernels use it"
                if name == "decode"
                else "the machine has room: faster kernels use it; shared prefixes save the work",
            )


def _attention(run: Mapping[str, Any]) -> Said:
    share = _share(run, stages.ATTENTION_DECODE)
    if share >= LARGE_ATTENTION:
        yield (
            "attention",
            f"attention over the cache takes {share:.0%} of the work",
            "shorter contexts, a smaller kv.dtype, or a window of attention help",
        )


def _sampling(run: Mapping[str, Any]) -> Said:
    share = _share(run, stages.SAMPLING)
    if share >= LARGE_WORK:
        yield (
            "sampling",
            f"sampling takes {share:.0%} of the work",
            "fewer filters, penalties and log-probabilities, or greedy decoding, cost less",
        )


def _around(run: Mapping[str, Any]) -> Said:
    share = _share(run, *INTERPRETER)
    if share >= LARGE_WORK:
        yield (
            "engine",
            f"scheduling, batches and events take {share:.0%} of the work",
            "the model is small for its steps: more sequences in a step share that cost",
        )


def _tokenizer(run: Mapping[str, Any]) -> Said:
    share = _share(run, stages.TOKENIZING)
    if share >= LARGE_WORK:
        yield "tokenizer", f"templates and tokenizer take {share:.0%} of the work", "send token ids, or shorter prompts"


def _http(run: Mapping[str, Any]) -> Said:
    share = _share(run, stages.HTTP, stages.WIRE)
    if share >= LARGE_WORK:
        yield (
            "http",
            f"HTTP and the wire to the worker take {share:.0%} of the work",
            "give the engine fewer threads than there are cores, or ask without streaming",
        )


RULES: Sequence[Callable[[Mapping[str, Any]], Said]] = (
    _neighbours, _waiting, _limits, _attention, _sampling, _around, _tokenizer, _http,
)  # fmt: skip


def _is_shared(run: Mapping[str, Any]) -> bool:
    others = run["others_cores"]
    return others is not None and others >= SHARED_CORES


def _share(run: Mapping[str, Any], *names: str) -> float:
    return sum(float(stage["share"]) for stage in run["stages"] if stage["stage"] in names)


def _named(phase: str) -> str:
    return "a step that mixes prompts and decoding" if phase == "mixed" else phase
