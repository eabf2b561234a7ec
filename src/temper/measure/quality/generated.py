"""Suites over generators: every answer is known exactly, and every experiment has questions of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from temper.asking import Answer, ask
from temper.measure.quality.answers import final_expression, final_text
from temper.measure.quality.check import Check
from temper.measure.quality.generators.question import Generator, Question
from temper.measure.quality.suite import Item, Metric, draw, request_seed
from temper.measure.quality.verify import Verifier

MAX_TOKENS = 384
FORM = "\n\nThink if you need to, then end with one line: Answer: <your answer>"
FORM_ZH = "\n\n可以先思考,最后用一行写出:答案:<你的答案>"

CORRECT = Metric("correct", "share of answers that are exactly right", kind="share")
VERIFIED = Metric("correct", "share of answers that a computer algebra system proves equal to the right one",
                  kind="share")  # fmt: skip


def asked(question: Question, form: str = FORM) -> str:
    """What is said to the model. Questions for code or JSON say themselves how they want to be answered."""
    return question.text + ("" if question.kind in ("code", "json") else form)


class GeneratedSuite:
    """Questions of one generator, answered by a number or by one of a few words."""

    metrics: tuple[Metric, ...] = (CORRECT,)

    def __init__(self, name: str, generator: Generator, form: str = FORM, check: Check | None = None) -> None:
        self.name = name
        self._generator = generator
        self._form = form
        self._check = check or Check()

    def items(self, seed: int, count: int) -> Sequence[Item]:
        """As many as asked for; item i depends on the seed and on i alone."""
        return [self._item(seed, index) for index in range(count)]

    def score(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """1 where the answer is right, else 0."""
        return {"correct": float(self._right(item.reference, final_text(answer)))}

    def _right(self, question: Question, text: str) -> bool:
        return self._check.right(question.expected, text)

    def _item(self, seed: int, index: int) -> Item:
        question = self._generator(draw(seed, self.name, index))
        request = ask(
            [{"role": "user", "content": asked(question, self._form)}],
            id=f"{self.name}-{seed}-{index}",
            max_tokens=MAX_TOKENS,
            seed=request_seed(seed, self.name, index),
        )
        return Item(f"{self.name}-{index}", request, question)


class VerifiedSuite(GeneratedSuite):
    """Questions answered by an expression; what is equal to the right one is right, however it is written."""

    metrics = (VERIFIED,)

    def __init__(self, name: str, generator: Generator, form: str = FORM) -> None:
        super().__init__(name, generator, form)
        self._verifier = Verifier()

    def notes(self) -> Mapping[str, object]:
        """How many answers so far the verifier could not decide in time; they count as wrong."""
        return {"undecided": self._verifier.num_undecided, "verifier": self._verifier.about}

    def _right(self, question: Question, text: str) -> bool:
        return self._verifier.equal(final_expression(text), str(question.answer))
