"""Sums worked out the way one does them on paper: a line a step, small enough for a small model to follow.

Every line is an equation that holds; the last one is the whole sum.
"""

from __future__ import annotations

EASY = 20
"""Sums within it are known by heart, and so are the multiplication tables up to 12."""


def total(a: int, b: int) -> list[str]:
    """a + b, the second number added place by place."""
    whole = f"{a} + {b} = {a + b}"
    if b < 0:
        return [*difference(a, -b), f"{a} + ({b}) = {a + b}"]
    if a < 0:
        return [*difference(b, -a), whole]
    parts = places(b)
    if len(parts) < 2 or a + b <= EASY:
        return [whole]
    lines, running = [], a
    for part in parts:
        lines.append(f"{running} + {part} = {running + part}")
        running += part
    return [*lines, whole]


def difference(a: int, b: int) -> list[str]:
    """a - b, for b of any size and sign."""
    whole = f"{a} - {b} = {a - b}"
    if b < 0:
        return [*total(a, -b), f"{a} - ({b}) = {a - b}"]
    if a < 0:
        return [*total(-a, b), whole]
    if b > a:
        return [*difference(b, a), whole] if a else [whole]
    parts = places(b)
    if len(parts) < 2 or a <= EASY:
        return [whole]
    lines, running = [], a
    for part in parts:
        lines.append(f"{running} - {part} = {running - part}")
        running -= part
    return [*lines, whole]


def product(a: int, b: int) -> list[str]:
    """a × b, one factor taken apart by its places."""
    whole = f"{a} × {b} = {a * b}"
    if a < 0 or b < 0:
        return [*product(abs(a), abs(b)), f"{_bracketed(a)} × {_bracketed(b)} = {a * b}"]
    if (a <= 12 and b <= 12) or (len(places(a)) < 2 and len(places(b)) < 2):
        return [whole]
    small, large = sorted((a, b))
    if len(places(small)) < 2:  # 523 × 4: the larger one is taken apart
        small, large = large, small
    parts = [(part, large * part) for part in places(small)]
    lines = []
    for part, value in parts:
        easy = len(places(large)) < 2 or large <= 12
        lines += [f"{large} × {part} = {value}"] if easy else _by_place(large, part)
    running = parts[0][1]
    for _, value in parts[1:]:
        lines.append(f"{running} + {value} = {running + value}")
        running += value
    return [*lines, whole]


def quotient(a: int, b: int) -> list[str]:
    """a ÷ b where it comes out even: shown by its proof."""
    return [f"{b} × {a // b} = {a}", f"{a} ÷ {b} = {a // b}"]


def places(value: int) -> list[int]:
    """A number as a sum of its digits' values, zeros left out: 507 is 500 and 7."""
    digits = str(value)
    return [int(digit) * 10 ** (len(digits) - at - 1) for at, digit in enumerate(digits) if digit != "0"]


def _by_place(large: int, part: int) -> list[str]:
    """large × part for a part of one digit and zeros."""
    terms = [place * part for place in places(large)]
    return [f"{large} × {part} = {' + '.join(map(str, terms))} = {sum(terms)}"]


def _bracketed(value: int) -> str:
    return f"({value})" if value < 0 else str(value)
