"""Whether an answer is right, judged while it is served: no labels, nothing that depends on the arm it came from.

`sane`: signs that something broke, whatever was asked. `agreement`: the incumbent is asked the same again and must
say about the same; its agreement with itself is what a candidate's is compared with. Both err, alike on both arms.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from temper.asking import Answer, collect
from temper.types import Event, Request

LIKENESS = 0.5
"""Share of the words that two answers must have in common, in order, to agree."""
MOST_WORDS = 400
"""Compared; the beginning of a longer answer stands for it."""

_NOISE = re.compile(r"[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f]|</?think>")
_LOOP = re.compile(r"(.{1,60}?)\1{11,}\Z", re.DOTALL)
"""The same up to 60 characters twelve times in a row, up to the end."""


def is_sane(request: Request, answer: Answer) -> bool:
    """Whether the answer shows no sign of something broken: nothing said, noise, endless repetition, broken JSON."""
    wants_json = (request.response_format or {}).get("type") in ("json_object", "json_schema")
    for sample in answer.samples:
        if not (sample.text.strip() or sample.reasoning.strip() or sample.tool_calls):
            return False
        if _NOISE.search(sample.text) or _LOOP.search(sample.text[-2000:]):
            return False
        if not all(_is_json(call.arguments or "{}") for call in sample.tool_calls):
            return False
        if wants_json and sample.finish_reason == "stop" and not _is_json(sample.text):
            return False
    return True


async def agrees(request: Request, answer: Answer, incumbent: Callable[[Request], AsyncIterator[Event]]) -> bool:
    """Whether the incumbent, asked the same, says about the same.

    Raises:
        TemperError: it does not answer.
    """
    again = await collect(incumbent(replace(request, id=f"{request.id}-again", priority=request.priority + 1)))
    return all(
        likeness(one.text, other.text) >= LIKENESS for one, other in zip(answer.samples, again.samples, strict=False)
    )


def likeness(one: str, other: str) -> float:
    """2 · words in common, in order, over the words of both; 1 for equal texts."""
    if one == other:
        return 1.0
    a, b = one.split()[:MOST_WORDS], other.split()[:MOST_WORDS]
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
