"""What a generator makes, and how: templates that draw named operands and tell a question with its working.

A template is a plain function of `Draws`. Because every draw has a name, a question can be told again from its operands
(to check it), or with other numbers and the same words (to vary it), and two questions can be compared by what they
are made of instead of by their text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Kind = Literal["number", "choice", "expression", "text", "json", "code"]
"""How an answer is checked: as a number, exactly; as one of a few words; as an expression, by computer algebra; as text
to the letter; as a JSON value; as a Python function, by tests in the sandbox."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a right answer is."""

    kind: Kind
    answer: str
    """Numbers as `shown` writes them; for `code` a function that passes."""
    choices: tuple[str, ...] = ()
    tests: str = ""
    """For `code`: Python that raises where the function is wrong."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its one right answer."""

    text: str
    answer: Fraction | str
    """A number, one of `choices`, or else an expression that any equal one may stand for."""
    choices: tuple[str, ...] = ()
    kind: Kind | None = None
    """How the answer is checked, where its type does not say so."""
    tests: str = ""
    steps: tuple[str, ...] = ()
    """The working, a line each. Every equation in it holds (`equations.check`), and the last leads to the answer."""
    level: int = 1
    """1: one small step … 5: many steps that build on each other."""
    template: str = ""
    operands: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What was drawn, by name: plain data, enough to tell the question again."""
    numbers: tuple[str, ...] = ()
    """Which operands are numbers that another draw may replace."""
    dress: tuple[str, ...] = ()
    """Which operands are names and things that change nothing."""

    @property
    def expected(self) -> Expected:
        """What a right answer is."""
        if isinstance(self.answer, Fraction):
            return Expected("number", shown(self.answer))
        kind = self.kind or ("choice" if self.choices else "expression")
        return Expected(kind, self.answer, self.choices, self.tests)


Generator = Callable[[random.Random], Question]
"""Draws one question; all of its randomness comes from its argument."""


class Draws:
    """Named random choices. Those in `kept` are taken as they are; the rest come from `rng`, in order."""

    def __init__(self, rng: random.Random, kept: Mapping[str, Any] | None = None) -> None:
        self.rng = rng
        self._kept = kept or {}
        self.operands: dict[str, Any] = {}
        self.numbers: list[str] = []
        self.dress: list[str] = []

    def number(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        self.numbers.append(name)
        value = int(self._kept[name]) if name in self._kept else self.rng.randint(low, high)
        self.operands[name] = value
        return value

    def one(self, name: str, options: Sequence[T], *, number: bool = False) -> T:
        """One of `options`. With `number` it counts as a number that another draw may replace.

        What is no plain text or number is remembered by its place.
        """
        plain = all(isinstance(option, str | int) for option in options)
        if number:
            self.numbers.append(name)
        if name in self._kept:
            value: T = self._kept[name] if plain else options[self._kept[name]]
        else:
            value = self.rng.choice(options)
        self.operands[name] = value if plain else options.index(value)
        return value

    def coin(self, name: str) -> bool:
        """Heads or tails."""
        value = bool(self._kept[name]) if name in self._kept else self.rng.random() < 0.5
        self.operands[name] = value
        return value

    def thing(self, name: str, options: Sequence[str]) -> str:
        """One of `options`, a name that changes nothing."""
        self.dress.append(name)
        return self.one(name, options)

    def things(self, name: str, options: Sequence[str], count: int) -> list[str]:
        """`count` different ones of `options`, names that change nothing."""
        self.dress.append(name)
        return self.several(name, options, count)

    def several(self, name: str, options: Sequence[str], count: int) -> list[str]:
        """`count` different ones of `options`, in the order drawn."""
        value = list(self._kept[name]) if name in self._kept else self.rng.sample(options, count)
        self.operands[name] = value
        return value

    def shuffled(self, name: str, options: Sequence[str]) -> list[str]:
        """All of `options` in an order drawn."""
        value = list(self._kept[name]) if name in self._kept else list(options)
        if name not in self._kept:
            self.rng.shuffle(value)
        self.operands[name] = value
        return value


@dataclass(frozen=True, slots=True)
class Template:
    """A family of questions that differ in what is drawn."""

    name: str
    """`task.template`, in records and manifests."""
    tell: Callable[[Draws], Question]
    extra: bool = False
    """Harder than what the suite of the same name asks; drawn only where its level is asked for."""

    def question(self, rng: random.Random, kept: Mapping[str, Any] | None = None) -> Question:
        """Draw what is not `kept`, and tell the question with what it was made of."""
        draws = Draws(rng, kept)
        told = self.tell(draws)
        return replace(
            told,
            template=self.name,
            operands=draws.operands,
            numbers=tuple(draws.numbers),
            dress=tuple(draws.dress),
        )


def drawing(mix: Sequence[Template]) -> Generator:
    """The generator that draws one of `mix`, each as often as it stands there."""
    return lambda rng: rng.choice(mix).question(rng)


def key(question: Question) -> str:
    """What makes two questions the same task: the template and what was drawn, without names that change nothing.

    Whoever has seen Mia's 20 apples knows Omar's 20 shells.
    """
    kept = {name: value for name, value in question.operands.items() if name not in question.dress}
    return f"{question.template} {json.dumps(kept, sort_keys=True, ensure_ascii=False)}"


def shown(value: Fraction | int) -> str:
    """A number as one writes it: whole, decimal where that ends, else as a fraction."""
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest //= prime
            count += 1
        places = max(places, count)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def rounded(value: Fraction, places: int) -> Fraction:
    """`value` to so many decimal places, halves away from zero, as one rounds at school."""
    scale = 10**places
    whole, half = divmod(abs(value) * scale, 1)
    found = Fraction(whole + (1 if half >= Fraction(1, 2) else 0), scale)
    return -found if value < 0 else found
