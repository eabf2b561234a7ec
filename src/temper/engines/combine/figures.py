"""What several engines are together: capabilities that hold whichever of them answers, figures summed, health merged.

Pure functions over the seam's records; they know no engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from temper.engines.base import Capabilities, Health, Stats
from temper.errors import Invalid, NotFound, Unsupported
from temper.types import Request

_EXACTNESS = ("unknown", "reproducible", "batch-invariant")
_SUMMED = (
    "num_running",
    "num_waiting",
    "kv_used_bytes",
    "kv_budget_bytes",
    "kv_peak_bytes",
    "prefix_queries_total",
    "prefix_hits_total",
    "preemptions_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "steps_total",
)


def meet(cans: Sequence[Capabilities], *, alike: bool) -> Capabilities:
    """What every one of `cans` can do. `alike`: the same deployment several times, so answers agree too.

    Token ids mean the same only where all serve one model: else tokenizing, scoring and vectors are not offered.
    """
    first = cans[0]
    if len(cans) == 1:
        return replace(first, trace=False)
    same_model = all(can.model == first.model for can in cans)
    lengths = [can.context_length for can in cans if can.context_length is not None]
    adapters = _shared([can.adapters for can in cans])
    return Capabilities(
        model=first.model,
        context_length=min(lengths, default=None),
        logprobs=all(can.logprobs for can in cans),
        max_logprobs=min(can.max_logprobs for can in cans),
        echo=all(can.echo for can in cans),
        tools=all(can.tools for can in cans),
        grammar=all(can.grammar for can in cans),
        adapters=adapters,
        adapter_versions=adapter_versions(adapters, cans),
        media=_shared([can.media for can in cans]),
        max_n=min(can.max_n for can in cans),
        beams=all(can.beams for can in cans),
        seed=all(can.seed for can in cans),
        thinking=all(can.thinking for can in cans),
        tokenize=same_model and all(can.tokenize for can in cans),
        eos_token=first.eos_token if all(can.eos_token == first.eos_token for can in cans) else None,
        embed=same_model and all(can.embed for can in cans),
        score=same_model and all(can.score for can in cans),
        response_cache=all(can.response_cache for can in cans),
        exactness=min((can.exactness for can in cans), key=_exactness) if alike else "unknown",
    )


def adapter_versions(names: Iterable[str], cans: Sequence[Capabilities]) -> tuple[str, ...]:
    """Of each adapter: its version, or all of them where the engines that have it differ."""
    known = [dict(zip(can.adapters, can.adapter_versions, strict=False)) for can in cans]
    return tuple("+".join(dict.fromkeys(versions[name] for versions in known if name in versions)) for name in names)


def all_adapters(can: Capabilities, cans: Sequence[Capabilities]) -> Capabilities:
    """`can` with every adapter that one of `cans` has: for engines that send a request to who has its adapter."""
    names = tuple(dict.fromkeys(name for one in cans for name in one.adapters))
    return replace(can, adapters=names, adapter_versions=adapter_versions(names, cans))


def widest_context(can: Capabilities, cans: Iterable[Capabilities]) -> Capabilities:
    """`can` with the longest context of `cans`: for engines that send a long prompt to who can take it."""
    lengths = [one.context_length for one in cans]
    longest = None if None in lengths else max((length for length in lengths if length is not None), default=None)
    return replace(can, context_length=longest)


def _exactness(word: str) -> int:
    return _EXACTNESS.index(word) if word in _EXACTNESS else 0


def _shared(sets: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for name in sets[0] if all(name in other for other in sets[1:]))


def check(request: Request, can: Capabilities, name: str) -> None:
    """Refuse what not every child can do, so that an answer never depends on who happened to be asked.

    Raises:
        Invalid: naming the field.
    """
    if (request.messages is None) == (request.prompt is None):
        raise Invalid("exactly one of messages and prompt is needed", param="messages")
    if not 1 <= request.n <= can.max_n:
        raise Invalid(f"'n' is {request.n}, allowed is 1 to {can.max_n}", param="n")
    most = can.max_logprobs if can.logprobs else -1
    if request.logprobs is not None and not 0 <= request.logprobs <= most:
        raise Unsupported(f"'logprobs' is {request.logprobs}, '{name}' gives at most {most}", param="logprobs")
    if request.adapter is not None and request.adapter not in can.adapters:
        raise NotFound(f"'{name}' has no adapter '{request.adapter}'", param="adapter")
    for param, is_asked, is_offered in (
        ("tools", bool(request.tools), can.tools),
        ("echo", request.echo, can.echo),
        ("seed", request.sampling.seed is not None, can.seed),
        ("num_beams", (request.sampling.num_beams or 1) > 1, can.beams),
        ("thinking", request.thinking.enabled is True, can.thinking),
        ("response_format", (request.response_format or {}).get("type", "text") != "text", can.grammar),
        ("messages", any(part.kind not in can.media for m in request.messages or () for part in m.media), False),
    ):
        if is_asked and not is_offered:
            raise Unsupported(f"not every engine behind '{name}' offers what '{param}' asks for", param=param)


def total(parts: Mapping[str, Stats], hidden: Iterable[str] = ()) -> Stats:
    """The sum of several engines' figures; those `hidden` are listed as children and not summed."""
    left_out = frozenset(hidden)
    counted = [found for name, found in parts.items() if name not in left_out]
    sums = {name: sum(getattr(found, name) for found in counted) for name in _SUMMED}
    ages = [found.last_step_age_s for found in counted if found.last_step_age_s is not None]
    budget = sums["kv_budget_bytes"]
    return Stats(
        **sums,
        kv_usage=sums["kv_used_bytes"] / budget if budget else 0.0,
        last_step_age_s=min(ages, default=None),
        children=dict(parts),
    )


def merged(children: Mapping[str, Health], *, needs_all: bool) -> Health:
    """Ready when all are, or when one is; the reasons of those that are not, by name."""
    enough = all if needs_all else any
    reasons = "; ".join(f"{name}: {found.reason or 'not ready'}" for name, found in children.items() if not found.ready)
    return Health(
        alive=enough(found.alive for found in children.values()),
        ready=enough(found.ready for found in children.values()),
        reason=reasons,
        engines=dict(children),
    )
