"""Code: what a small Python program prints, and small functions to write or to put right, run against tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Kind, Question, Template, drawing

_ANIMALS = ("cat", "dog", "owl", "fox", "hen", "bee", "ant", "cow")


def _printed(program: str, answer: Fraction | str, steps: Sequence[str], level: int) -> Question:
    kind: Kind | None = None if isinstance(answer, Fraction) else "text"
    return Question(f"What does this Python program print?\n\n```python\n{program}\n```", answer, kind=kind,
                    steps=tuple(steps), level=level)  # fmt: skip


def _loop(d: Draws) -> Question:
    start, step, times = d.number("start", 0, 20), d.number("step", 2, 9), d.number("times", 3, 5)
    program = f"total = {start}\nfor i in range({times}):\n    total = total + i * {step}\nprint(total)"
    total, steps = start, list[str]()
    for i in range(times):
        steps.append(f"i is {i}: {total} + {i} × {step} = {total + i * step}")
        total += i * step
    return _printed(program, Fraction(total), steps, 3)


def _branches(d: Draws) -> Question:
    value, limit, factor, less = (
        d.number("value", 1, 60), d.number("limit", 10, 50), d.number("factor", 2, 6), d.number("less", 1, 9),
    )  # fmt: skip
    program = f"def f(x):\n    if x > {limit}:\n        return x - {less}\n    return x * {factor}\n\nprint(f({value}))"
    above = value > limit
    result = value - less if above else value * factor
    steps = (
        f"{value} is {'more' if above else 'not more'} than {limit}, so the "
        f"{'first' if above else 'second'} return counts.",
        f"{value} - {less} = {result}" if above else f"{value} × {factor} = {result}",
    )
    return _printed(program, Fraction(result), steps, 1)


def _slice(d: Draws) -> Question:
    values = [d.number(f"value_{at}", 1, 99) for at in range(6)]
    low, high = d.number("low", 0, 2), d.number("high", 3, 6)
    kept = values[low:high]
    steps = (
        f"The slice takes the places {low} to {high - 1}, counted from 0.",
        f"Place {low} holds {kept[0]}, place {high - 1} holds {kept[-1]}.",
    )
    return _printed(f"values = {values}\nprint(values[{low}:{high}])", str(kept), steps, 2)


def _comprehension(d: Draws) -> Question:
    values, by = [d.number(f"value_{at}", 1, 60) for at in range(5)], d.number("by", 2, 4)
    kept = [value for value in values if value % by == 0]
    steps = [f"{value} {'is' if value % by == 0 else 'is not'} a multiple of {by}." for value in values]
    if kept:
        steps.append(f"{' + '.join(map(str, kept))} = {sum(kept)}")
    return _printed(f"values = {values}\nprint(sum(v for v in values if v % {by} == 0))", Fraction(sum(kept)),
                    [*steps, f"The sum is {sum(kept)}."], 3)  # fmt: skip


def _recursion(d: Draws) -> Question:
    base, add, times, depth = (
        d.number("base", 1, 5), d.number("add", 1, 6), d.number("times", 2, 3), d.number("depth", 2, 4),
    )  # fmt: skip
    program = (
        f"def f(n):\n    if n == 0:\n        return {base}\n    return f(n - 1) * {times} + {add}\n\nprint(f({depth}))"
    )
    value, steps = base, [f"f(0) is {base}."]
    for n in range(1, depth + 1):
        steps.append(f"f({n}) is {value} × {times} + {add} = {value * times + add}")
        value = value * times + add
    return _printed(program, Fraction(value), steps, 4)


def _counting(d: Draws) -> Question:
    names = d.several("names", _ANIMALS, 3)
    drawn = [names[d.number(f"pick_{at}", 0, 2)] for at in range(6)]
    asked = d.one("asked", (0, 1, 2))
    program = (
        f"words = {drawn}\ncounts = {{}}\nfor word in words:\n    counts[word] = counts.get(word, 0) + 1\n"
        f"print(counts.get({names[asked]!r}, 0))"
    )
    count, steps = 0, list[str]()
    for word in drawn:
        count += word == names[asked]
        steps.append(f"{word}: {count}")
    return _printed(program, Fraction(count), [f"Counting '{names[asked]}':", *steps], 3)


def _strings(d: Draws) -> Question:
    word, times = d.one("word", _ANIMALS), d.number("times", 2, 4)
    upper = d.coin("upper")
    call = ".upper()" if upper else "[::-1]"
    changed = word.upper() if upper else word[::-1]
    steps = (
        f"'{word}' {'in capitals' if upper else 'read backwards'} is '{changed}'.",
        f"{times} times that is '{changed * times}'.",
    )
    return _printed(f"print('{word}'{call} * {times})", changed * times, steps, 2)


# -- functions to write ------------------------------------------------------------------------------

Reference = Callable[[list[int]], object]


def _written(
    d: Draws, name: str, task: str, body: str, reference: Reference, steps: Sequence[str], level: int,
    given: str | None = None,
) -> Question:  # fmt: skip
    """A function of a list of numbers; its tests are what `reference` gives on lists that are drawn."""
    lists = [[d.number(f"test_{test}_{at}", -20, 60) for at in range(5)] for test in range(3)]
    cases = [*lists, lists[0][:1], list(reversed(lists[1]))]
    tests = "\n".join(f"assert {name}({case}) == {reference(case)!r}" for case in cases)
    code = f"def {name}(values):\n{body}"
    asked = f"Write a Python function `{name}(values)` that {task} " if given is None else (
        f"This Python function should be one that {task} Put it right.\n\n"
        f"```python\ndef {name}(values):\n{given}\n```\n\n"
    )  # fmt: skip
    return Question(
        f"{asked}`values` is a list of one or more whole numbers, for example `{lists[2]}`. "
        f"Think if you need to, then answer with the whole function in one code block.",
        code, kind="code", tests=tests, steps=tuple(steps), level=level,
    )  # fmt: skip


def _sum_above(d: Draws) -> Question:
    limit = d.number("limit", 0, 30)
    return _written(
        d, "sum_above", f"returns the sum of all values above {limit}.",
        f"    return sum(value for value in values if value > {limit})",
        lambda values: sum(value for value in values if value > limit),
        (f"Go through the values and take those above {limit}.", "Add them up; the sum of none is 0."), 3,
    )  # fmt: skip


def _count_multiples(d: Draws) -> Question:
    by = d.number("by", 2, 7)
    return _written(
        d, "count_multiples", f"returns how many values are multiples of {by}.",
        f"    return sum(1 for value in values if value % {by} == 0)",
        lambda values: sum(1 for value in values if value % by == 0),
        (f"A value is a multiple of {by} when the remainder of dividing it by {by} is 0.", "Count those."), 3,
    )  # fmt: skip


def _clamped(d: Draws) -> Question:
    low, high = d.number("low", -10, 5), d.number("high", 10, 40)
    return _written(
        d, "clamped",
        f"returns a new list in which every value below {low} is {low} and every value above {high} is {high}.",
        f"    return [min(max(value, {low}), {high}) for value in values]",
        lambda values: [min(max(value, low), high) for value in values],
        (f"max(value, {low}) lifts what is below {low}.", f"min(…, {high}) lowers what is above {high}.",
         "A list comprehension does it for every value."), 3,
    )  # fmt: skip


def _largest_step(d: Draws) -> Question:
    factor = d.number("factor", 1, 5)
    tail = f" * {factor}" if factor > 1 else ""
    return _written(
        d, "largest_step", "returns the largest difference between a value and the one before it"
        f"{f', times {factor}' if factor > 1 else ''}; 0 for a single value.",
        "    steps = [after - before for before, after in zip(values, values[1:])]\n"
        f"    return max(steps, default=0){tail}",
        lambda values: max((b - a for a, b in itertools.pairwise(values)), default=0) * factor,
        ("zip(values, values[1:]) gives each value with the next.", "The difference is the next less the value.",
         "max with default=0 is right for a single value too."), 4,
    )  # fmt: skip


def _mended_sum(d: Draws) -> Question:
    """A loop that forgets the last value."""
    factor = d.number("factor", 2, 9)
    return _written(
        d, "weighted_total", f"returns the sum of all values, each times {factor}.",
        f"    total = 0\n    for at in range(len(values)):\n        total += values[at] * {factor}\n    return total",
        lambda values: sum(values) * factor,
        ("range(len(values) - 1) ends before the last place, so the last value is left out.",
         "range(len(values)) reaches every place."), 4,
        f"    total = 0\n    for at in range(len(values) - 1):\n"
        f"        total += values[at] * {factor}\n    return total",
    )  # fmt: skip


def _mended_filter(d: Draws) -> Question:
    """A list that is changed while it is gone through."""
    limit = d.number("limit", 0, 30)
    return _written(
        d, "without_large", f"returns a new list without the values above {limit}, and leaves `values` as it is.",
        f"    return [value for value in values if value <= {limit}]",
        lambda values: [value for value in values if value <= limit],
        ("Removing from a list while going through it skips the value after each one removed.",
         "It also changes the caller's list.", "A list comprehension makes a new one and skips nothing."), 5,
        f"    for value in values:\n        if value > {limit}:\n            values.remove(value)\n    return values",
    )  # fmt: skip


MIX = TEMPLATES = (
    Template("code.loop", _loop),
    Template("code.branches", _branches),
    Template("code.slice", _slice),
    Template("code.comprehension", _comprehension),
    Template("code.recursion", _recursion),
    Template("code.counting", _counting),
    Template("code.strings", _strings),
    Template("code.sum_above", _sum_above),
    Template("code.count_multiples", _count_multiples),
    Template("code.clamped", _clamped),
    Template("code.largest_step", _largest_step),
    Template("code.mended_sum", _mended_sum),
    Template("code.mended_filter", _mended_filter),
)

question = drawing(MIX)
