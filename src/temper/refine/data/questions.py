"""Questions for a data set: which task, which level, what was asked before, and what must never be asked.

Question i depends on the seed and on those before it alone. Each is checked before it is given out: its equations hold,
its answer is read back as the right one, and told again from its operands it is the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from temper.asking import Sample
from temper.errors import EngineFailure, Invalid, NotFound
from temper.measure.quality import equations
from temper.measure.quality.answers import final_text
from temper.measure.quality.check import Check
from temper.measure.quality.generated import FORM, FORM_ZH, asked
from temper.measure.quality.generators import tasks
from temper.measure.quality.generators.question import Expected, Question, key
from temper.measure.quality.kinds import KINDS
from temper.measure.quality.suite import draw
from temper.refine.data.record import Record, Turn, thought

LEVELS: Final = (1, 2, 3, 4, 5)
MAX_ATTEMPTS: Final = 2000
FORMS: Final = {"en": FORM, "zh": FORM_ZH}
ANSWERS: Final = {"en": "Answer: {}", "zh": "答案:{}"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the task that it belongs to."""

    task: str
    index: int
    question: Question


class Questions:
    """Draws questions that differ, none of which is forbidden."""

    def __init__(
        self, weights: Mapping[str, float], levels: Sequence[int], seed: int, forbidden: frozenset[str] = frozenset()
    ) -> None:
        """`weights`: how often each task is drawn, by name. `forbidden`: keys (`question.key`) that are held out.

        Raises:
            NotFound: there is no such task.
            Invalid: a weight or a level cannot be.
        """
        if not weights:
            raise Invalid("one task or more must be named, but none is", param="task", hint=", ".join(tasks.TASKS))
        for name, weight in weights.items():
            tasks.find(name)
            if not 0 < weight < 1e9:
                raise Invalid(f"a weight is above 0, but that of '{name}' is {weight}", param="task")
        if not levels or not set(levels) <= set(LEVELS):
            raise Invalid(f"levels go from 1 to 5, but are {list(levels)}", param="level")
        self._names, self._weights = list(weights), list(weights.values())
        self._levels = frozenset(levels)
        self._seed, self._forbidden = seed, forbidden
        self._seen: set[bytes] = set()
        harder = max(levels) > 3
        self._templates = {
            name: [found for found in tasks.find(name).templates if harder or not found.extra] for name in weights
        }

    def first(self, count: int) -> Iterator[Asked]:
        """The first `count`.

        Raises:
            Invalid: the tasks have no more that differ.
        """
        for index in range(count):
            yield self._next(index, count)

    def _next(self, index: int, count: int) -> Asked:
        for attempt in range(MAX_ATTEMPTS):
            rng = draw("data", self._seed, index, attempt)
            task = rng.choices(self._names, self._weights)[0]
            question = rng.choice(self._templates[task]).question(rng)
            known_by = hashlib.blake2b(question.text.encode(), digest_size=16).digest()
            if question.level not in self._levels or known_by in self._seen:
                continue
            if self._forbidden and key(question) in self._forbidden:
                continue
            self._seen.add(known_by)
            return Asked(task, index, question)
        raise Invalid(
            f"the tasks {', '.join(self._names)} have no more than {index} different questions of level "
            f"{', '.join(map(str, sorted(self._levels)))}, but {count} were asked for",
            param="count", hint="ask for fewer, or for more tasks or levels",
        )  # fmt: skip


def held_out(suites: Sequence[str], seed: int, count: int) -> frozenset[str]:
    """Keys of the questions that `temper eval` asks at `seed`: data made without them has not seen that exam.

    Raises:
        NotFound: a suite is not drawn from templates.
    """
    return frozenset(key(question) for name in suites for question in _exam(name, seed, count))


def _exam(name: str, seed: int, count: int) -> Iterator[Question]:
    from temper.measure.quality.kinds import find

    if name not in KINDS or name not in tasks.TASKS:
        raise NotFound(f"only a suite made of templates can be held out, and '{name}' is none", param="held_out",
                       hint=", ".join(tasks.TASKS))  # fmt: skip
    suite = find(name)
    assert not hasattr(suite, "measure")
    for item in suite.items(seed, count):
        assert isinstance(item.reference, Question)
        yield item.reference


def record_of(item: Asked, seed: int) -> Record:
    """A question with its working as an example to learn from."""
    question, task = item.question, tasks.find(item.task)
    expected = question.expected
    answer = expected.answer
    said = _said(expected, task.language)
    metadata: dict[str, Any] = {
        "id": f"{item.task}-{seed}-{item.index}",
        "task": item.task,
        "domain": task.domain,
        "language": task.language,
        "level": question.level,
        "template": question.template,
        "operands": dict(question.operands),
        "verifier": verifier(expected),
        "num_steps": len(question.steps),
        "source": "template",
        "seed": seed,
    }
    prompt = asked(question, FORMS[task.language])
    return Record((Turn("user", prompt), Turn("assistant", thought(question.steps, said))), "", answer, metadata)


def verifier(expected: Expected) -> dict[str, Any]:
    """How the answer is checked, as a record says it."""
    found: dict[str, Any] = {"kind": expected.kind}
    if expected.choices:
        found["choices"] = list(expected.choices)
    if expected.tests:
        found["tests"] = expected.tests
    return found


def expected_of(record: Record) -> Expected | None:
    """What a record's right answer is; None where it does not say how to check it.

    Raises:
        Invalid: its `verifier` is malformed.
    """
    said = record.metadata.get("verifier")
    if said is None or record.answer is None:
        return None
    known = ("number", "choice", "expression", "text", "json", "code")
    if not isinstance(said, Mapping) or said.get("kind") not in known:
        raise Invalid(f"metadata.verifier.kind is one of {', '.join(known)}, but the verifier is {said!r}",
                      param="metadata")  # fmt: skip
    choices, tests = said.get("choices", ()), said.get("tests", "")
    if not isinstance(choices, list | tuple) or not isinstance(tests, str):
        raise Invalid("metadata.verifier has 'choices' as a list and 'tests' as text, but has not", param="metadata")
    return Expected(said["kind"], record.answer, tuple(map(str, choices)), tests)


def retold(record: Record) -> Question | None:
    """The question of a record told again from its template and operands; None where it names no template.

    Raises:
        Invalid: the operands do not fit the template.
    """
    name, operands = record.metadata.get("template"), record.metadata.get("operands")
    if not isinstance(name, str) or not isinstance(operands, Mapping):
        return None
    try:
        found = tasks.template(name)
    except NotFound:
        return None
    try:
        question = found.question(random.Random(0), operands)
        if dict(question.operands) == dict(operands):
            return question
        raise ValueError(f"it draws {', '.join(question.operands)}, and they are {', '.join(operands) or 'none'}")
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise Invalid(
            f"the operands of '{name}' must be those that it draws, but {type(error).__name__}: {error}",
            param="metadata",
        ) from None


def verify(record: Record, question: Question, check: Check) -> None:
    """Hold a made record against everything that can be worked out again.

    Raises:
        EngineFailure: an equation does not hold, the answer is not read back, or the operands tell something else.
    """
    found = equations.check(question.steps)
    if found.false:
        raise EngineFailure(f"{question.template} writes a sum that does not hold: {found.false[0]}")
    if not check.right(question.expected, final_text(Sample(text=record.response))):
        raise EngineFailure(
            f"{question.template} gives an answer that its own verifier refuses: {record.response[-80:]!r}"
        )
    again = retold(record)
    if again is None or (again.text, again.answer) != (question.text, question.answer):
        raise EngineFailure(f"{question.template} tells something else from the same operands")


def _said(expected: Expected, language: str) -> str:
    """The answer as the last lines of a reply."""
    if expected.kind == "code":
        return f"```python\n{expected.answer.strip()}\n```"
    if expected.kind == "json":
        return expected.answer
    return ANSWERS[language].format(expected.answer)
