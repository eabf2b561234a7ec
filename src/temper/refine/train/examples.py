"""Records as token examples: a conversation through the checkpoint's template, with a mark on what is learned.

Tokens are those that the served model will see: the prompt of a turn is rendered and encoded as for an answer, and
what the model should have written follows, closed as the template closes it. Knows no files and no batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from temper.errors import Invalid
from temper.models.chat_template import ends_thinking
from temper.models.checkpoint import Checkpoint
from temper.models.tokenizer import THINK_OPEN
from temper.refine.data.record import Record
from temper.types import Message

_MARK: Final = "temper-answer-stands-here"
"""A text that no template changes; what follows it in a rendered turn closes the turn."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to learn from."""

    token_ids: NDArray[np.int32]
    """[T]"""
    learned: NDArray[np.bool_]
    """[T] whether the token is a target; never true for the first, which nothing predicts."""
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Arrays [number of targets, …] that the loss reads beside them, such as a teacher's log-probabilities."""

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def num_targets(self) -> int:
        """How many tokens are learned."""
        return int(self.learned.sum())


class Renderer:
    """Makes examples of records for one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, *, loss_on: str = "answers", turns: str = "all") -> None:
        self._tokenizer = checkpoint.tokenizer
        self._template = checkpoint.template
        self._everything = loss_on == "everything"
        self._last_only = turns == "last"
        self._closing: list[int] | None = None

    def examples(self, record: Record) -> list[Example]:
        """The examples in a record: a conversation, or a text, which is learned whole.

        A conversation is one example, or several where the template shows earlier turns differently later on (as
        those do that leave thinking out): then each turn is learned as it would be asked for.

        Raises:
            Invalid: nobody answers in it, or the template refuses the conversation.
        """
        if record.messages:
            return self._conversation([Message(turn.role, turn.content) for turn in record.messages])
        return [_example([([*self._tokenizer.encode(record.text), *self._end()], True)])]

    def _conversation(self, messages: Sequence[Message]) -> list[Example]:
        answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
        if not answers:
            raise Invalid("a conversation to learn from has an assistant's turn, but this one has none")
        if self._last_only:
            answers = answers[-1:]
        found: list[Example] = []
        pieces: list[tuple[str, bool]] = []  # what the examples of the turns so far have in common
        for at in answers:
            prompt = self._template.render(messages[:at])
            known = "".join(text for text, _ in pieces)
            if pieces and not prompt.startswith(known):
                found.append(self._encoded(pieces))
                pieces, known = [], ""
            pieces = [*pieces, (prompt[len(known) :], False), (self._answer(prompt, messages[at]), True)]
        return [*found, self._encoded(pieces)]

    def _answer(self, prompt: str, message: Message) -> str:
        """What the model should have written after `prompt`, without what closes it."""
        text = message.content or ""
        if ends_thinking(prompt):  # the prompt opened it already
            text = text.lstrip().removeprefix(THINK_OPEN).lstrip("\n")
        return text

    def _encoded(self, pieces: Sequence[tuple[str, bool]]) -> Example:
        """One example of alternating prompts and answers, each encoded by itself as it is when served."""
        closing, after_answer = self._end(), False
        spans: list[tuple[Sequence[int], bool]] = []
        for text, is_answer in pieces:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            if after_answer and ids[: len(closing)] == closing:
                ids = ids[len(closing) :]  # the answer has been closed already
            spans.append((ids + closing if is_answer else ids, is_answer or self._everything))
            after_answer = is_answer
        return _example(spans)

    def _end(self) -> list[int]:
        """The token that ends an answer: what the template writes after one, as far as it is an end for an engine."""
        if self._closing is None:
            shown = self._template.render(
                (Message("user", "Hello"), Message("assistant", _MARK)), add_generation_prompt=False
            )
            after = self._tokenizer.encode(shown.partition(_MARK)[2], add_special_tokens=False)
            ends = self._tokenizer.eos_ids
            self._closing = next(([token] for token in after if token in ends), list(ends[:1]))
        return self._closing


def _example(spans: Sequence[tuple[Sequence[int], bool]]) -> Example:
    ids = np.array([token for part, _ in spans for token in part], np.int32)
    learned = np.array([flag for part, flag in spans for _ in part], np.bool_)
    if len(learned):
        learned[0] = False
    if not learned.any():
        raise Invalid("a record to learn from has an answer of a token or more, but this one's is empty")
    return Example(ids, learned)
