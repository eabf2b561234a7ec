"""A teacher's answers to questions: any engine's, kept only when the answer verifies.

Knows the seam, not which engine it asks. Answers come back in the order of the questions, however they overlap.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from temper.asking import Sample
from temper.engines.base import Engine
from temper.errors import Invalid
from temper.measure.quality import equations
from temper.measure.quality.answers import final_text
from temper.measure.quality.check import Check
from temper.measure.quality.suite import request_seed
from temper.refine.data.patience import answered
from temper.refine.data.questions import Asked, record_of
from temper.refine.data.record import Record, Turn, thought

EXCERPT = 200


@dataclass(frozen=True, slots=True)
class Teaching:
    """How a teacher is asked and what of its answers is kept."""

    samples: int = 1
    """Answers that it may give to a question until one verifies."""
    max_tokens: int = 2048
    temperature: float | None = None
    """None: as its profile says."""
    concurrency: int = 8
    """Questions asked at once."""
    need_thinking: bool = True
    """Whether an answer without a trace of thinking is dropped."""
    check_steps: bool = True
    """Whether a trace with a sum that does not hold is dropped."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise Invalid(f"{name} is 1 or more, but is {getattr(self, name)}", param=name)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What came of one question."""

    index: int
    id: str
    record: Record | None
    """None: no answer was kept."""
    reason: str = ""
    """Why not: of the last answer."""
    excerpt: str = ""


async def teach(
    engine: Engine, questions: Iterator[Asked], seed: int, teaching: Teaching, check: Check
) -> AsyncIterator[Lesson]:
    """One lesson a question, in order.

    Raises:
        TemperError: the engine refuses a request for good, or broke.
    """
    waiting: deque[asyncio.Task[Lesson]] = deque()
    try:
        for item in questions:
            waiting.append(asyncio.create_task(_lesson(engine, item, seed, teaching, check)))
            if len(waiting) >= teaching.concurrency:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _lesson(engine: Engine, item: Asked, seed: int, teaching: Teaching, check: Check) -> Lesson:
    plain = record_of(item, seed)
    options: dict[str, Any] = {"max_tokens": teaching.max_tokens}
    if teaching.temperature is not None:
        options["temperature"] = teaching.temperature
    reason, excerpt = "", ""
    for attempt in range(teaching.samples):
        number = request_seed(seed, f"teacher-{item.task}", item.index * teaching.samples + attempt)
        name = f"{plain.metadata['id']}-{attempt}"
        answer = await answered(engine, plain.messages[0].content, id=name, seed=number, **options)
        sample = answer.samples[0]
        thinking, said = split_thinking(sample)
        reason = await _wrong(item, sample, thinking, said, teaching, check)
        if not reason:
            metadata = {
                **plain.metadata, "source": "teacher", "teacher": engine.capabilities().model, "attempt": attempt + 1,
            }  # fmt: skip
            metadata.pop("num_steps")
            turns = (plain.messages[0], Turn("assistant", thought(thinking, said) if thinking else said))
            return Lesson(item.index, plain.metadata["id"], Record(turns, "", plain.answer, metadata))
        excerpt = (said or thinking)[-EXCERPT:]
    return Lesson(item.index, plain.metadata["id"], None, reason, excerpt)


def split_thinking(sample: Sample) -> tuple[str, str]:
    """Thinking and answer, also where the engine does not split them itself."""
    text, thinking = final_text(sample), sample.reasoning.strip()
    if not thinking and "</think>" in sample.text:
        thinking = sample.text.rpartition("</think>")[0].replace("<think>", "", 1).strip()
    return thinking, text


async def _wrong(item: Asked, sample: Sample, thinking: str, said: str, teaching: Teaching, check: Check) -> str:
    """Why an answer is not kept; empty where it is."""
    if sample.finish_reason == "length":
        return "cut off by the token limit"
    if not said:
        return "no answer after the thinking"
    if teaching.need_thinking and not thinking:
        return "no thinking"
    if not await asyncio.to_thread(check.right, item.question.expected, said):
        return "wrong answer"
    if teaching.check_steps and equations.check(thinking.splitlines()).false:
        return "a sum that does not hold"
    return ""
