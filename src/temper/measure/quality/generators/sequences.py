"""The next number: sequences that add, multiply, grow by growing steps, alternate, or add their last two."""

from __future__ import annotations

import itertools
from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing

SHOWN = 6


def _asked(numbers: list[int], rule: str, last: str, level: int, *, ratios: bool = False) -> Question:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    pairs = list(itertools.pairwise(numbers[:SHOWN]))
    looked = [
        f"{_in_brackets(b)} ÷ {_in_brackets(a)} = {b // a}" if ratios else f"{b} - {_in_brackets(a)} = {b - a}"
        for a, b in pairs[:4]
    ]
    return Question(
        f"What is the next number in this sequence? {shown}, …",
        Fraction(numbers[SHOWN]),
        steps=(*looked, rule, last),
        level=level,
    )


def _in_brackets(value: int) -> str:
    return f"({value})" if value < 0 else str(value)


def _plus(a: int, b: int) -> str:
    return f"{a} + {_in_brackets(b)} = {a + b}"


def _arithmetic(d: Draws) -> Question:
    start, step = d.number("start", -20, 50), d.one("step", [-9, -7, -4, 3, 4, 6, 7, 8, 11, 13], number=True)
    numbers = [start + step * i for i in range(SHOWN + 1)]
    return _asked(numbers, f"Each number is the last one plus {step}.", _plus(numbers[SHOWN - 1], step), 1)


def _geometric(d: Draws) -> Question:
    start, factor = d.number("start", 1, 6), d.one("factor", (2, 3, -2), number=True)
    numbers = [start * factor**i for i in range(SHOWN + 1)]
    last = f"{numbers[SHOWN - 1]} × {_in_brackets(factor)} = {numbers[SHOWN]}"
    return _asked(numbers, f"Each number is the last one times {factor}.", last, 2, ratios=True)


def _growing(d: Draws) -> Question:
    start, step, growth = d.number("start", 0, 20), d.number("step", 1, 6), d.number("growth", 1, 4)
    numbers = [start + step * i + growth * i * (i - 1) // 2 for i in range(SHOWN + 1)]
    grown = step + growth * (SHOWN - 1)
    rule = f"The steps grow by {growth}, so the next step is {grown - growth} + {growth} = {grown}."
    return _asked(numbers, rule, _plus(numbers[SHOWN - 1], grown), 3)


def _alternating(d: Draws) -> Question:
    numbers, up, down = [d.number("start", 1, 30)], d.number("up", 5, 12), d.number("down", 1, 4)
    for i in range(SHOWN):
        numbers.append(numbers[-1] + (up if i % 2 == 0 else -down))
    rule = f"The steps are {up} and -{down} in turns, so the next one is down by {down}."
    return _asked(numbers, rule, f"{numbers[SHOWN - 1]} - {down} = {numbers[SHOWN]}", 3)


def _fibonacci(d: Draws) -> Question:
    numbers = [d.number("first", 1, 9), d.number("second", 1, 9)]
    while len(numbers) <= SHOWN:
        numbers.append(numbers[-1] + numbers[-2])
    rule = f"The steps are no rule, but {numbers[0]} + {numbers[1]} = {numbers[2]}: each is the sum of the last two."
    return _asked(numbers, rule, f"{numbers[SHOWN - 2]} + {numbers[SHOWN - 1]} = {numbers[SHOWN]}", 3)


MIX = TEMPLATES = (
    Template("sequences.arithmetic", _arithmetic),
    Template("sequences.geometric", _geometric),
    Template("sequences.growing", _growing),
    Template("sequences.alternating", _alternating),
    Template("sequences.fibonacci", _fibonacci),
)

question = drawing(MIX)
