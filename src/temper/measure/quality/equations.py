"""Whether the equations in a working hold: found in running text, worked out exactly, never evaluated as Python.

Looks at chains such as `523 + 800 = 1323` or `84 × 3 ÷ 4 = 63`. An equation with letters in it (`x = 5`, `20 % of
50 = 10`) is passed over, not judged: this finds false sums, it does not prove an argument.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_CHARS = r"[\d\s.()+\-×*÷/^]"
_LEFT = re.compile(rf"{_CHARS}+\Z")
_RIGHT = re.compile(rf"{_CHARS}+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[()+\-*/^]")
_OPERATOR = re.compile(r"(?<=[\d)\s])[-+×*÷/^]")
_SPELLINGS = str.maketrans({"×": "*", "÷": "/", "−": "-", "·": "*"})
MAX_EXPONENT = 64
MAX_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a working."""

    num_true: int
    false: tuple[str, ...]
    """Equations that do not hold, as they stand there."""


def check(lines: Sequence[str]) -> Checked:
    """Every equation between numbers in `lines`. After `≈` half a unit of the last digit shown may be missing."""
    num_true, false = 0, []
    for line in lines:
        for left, sign, right in _equations(line):
            a, b = value(left), value(right)
            if a is None or b is None:
                continue
            if a == b or (sign == "≈" and abs(a - b) <= _half_unit(right)):
                num_true += 1
            else:
                false.append(f"{left.strip()} {sign} {right.strip()}")
    return Checked(num_true, tuple(false))


def value(text: str) -> Fraction | None:
    """What an expression of numbers comes to, exactly; None where it is none."""
    text = text.translate(_SPELLINGS)
    tokens = _TOKEN.findall(text)
    if not tokens or len(tokens) > MAX_TOKENS or "".join(tokens) != re.sub(r"\s", "", text):
        return None
    try:
        return _Parser(tokens).whole()
    except (_NoExpression, ZeroDivisionError, RecursionError):
        return None


def _equations(line: str) -> list[tuple[str, str, str]]:
    """(left, sign, right) of each equation whose two sides have no letters."""
    parts = re.split(r"([=≈])", _THOUSANDS.sub("", line))
    found = []
    for at in range(1, len(parts) - 1, 2):
        left = _left_side(parts[at - 1], chained=at > 1)
        right = _right_side(parts[at + 1])
        if left is not None and right is not None:
            found.append((left, parts[at], right))
    return found


def _left_side(text: str, *, chained: bool) -> str | None:
    found = _LEFT.search(text)
    if found is None or not re.search(r"\d", found[0]):
        return None
    before, side = text[: found.start()], found[0]
    # What begins a sentence may hang on: "5. 3 + 4".
    side = re.split(r"(?<=\d)\.\s+(?=[\d(-])", side)[-1]
    whole = chained and not before.strip() and side == found[0]
    if not whole and not _OPERATOR.search(side.strip()):
        return None  # a number alone after words: "half of 50 = 25"
    hangs_on = side == found[0] and before[-1:] not in ("", ":", ",", ";", "\n", "，", "：", "。")
    if hangs_on and (not side[:1].isspace() or re.match(r"\s*[-+×*÷/^)]", side) or re.search(r"\bof\s*\Z", before)):
        return None
    return side


def _right_side(text: str) -> str | None:
    found = _RIGHT.match(text)
    if found is None or not re.search(r"\d", found[0]):
        return None
    side, after = found[0], text[found.end() :]
    if after[:1].isalpha() and not side[-1:].isspace() and after[:1].isascii():
        return None  # "= 2x"
    if after[:1] == "%":
        return None
    return re.split(r"\.\s+|\.\Z", side.rstrip() + (" " if side[-1:].isspace() else ""))[0].strip() or None


def _half_unit(text: str) -> Fraction:
    places = len(text.strip().partition(".")[2])
    return Fraction(1, 2 * 10**places)


class _NoExpression(Exception):
    pass


class _Parser:
    """Sums, products, powers, signs and brackets; what stands first binds as at school."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def whole(self) -> Fraction:
        found = self._sum()
        if self._at != len(self._tokens):
            raise _NoExpression
        return found

    def _next(self, *wanted: str) -> str | None:
        if self._at < len(self._tokens) and self._tokens[self._at] in wanted:
            self._at += 1
            return self._tokens[self._at - 1]
        return None

    def _sum(self) -> Fraction:
        found = self._product()
        while sign := self._next("+", "-"):
            other = self._product()
            found = found + other if sign == "+" else found - other
        return found

    def _product(self) -> Fraction:
        found = self._signed()
        while sign := self._next("*", "/"):
            other = self._signed()
            found = found * other if sign == "*" else found / other
        return found

    def _signed(self) -> Fraction:
        if self._next("-"):
            return -self._signed()
        return self._power()

    def _power(self) -> Fraction:
        found = self._atom()
        if self._next("^"):
            exponent = self._signed()
            if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
                raise _NoExpression
            found = found ** int(exponent)
        return found

    def _atom(self) -> Fraction:
        if self._next("("):
            found = self._sum()
            if not self._next(")"):
                raise _NoExpression
            return found
        if self._at < len(self._tokens) and self._tokens[self._at][0].isdigit():
            self._at += 1
            return Fraction(self._tokens[self._at - 1])
        raise _NoExpression
