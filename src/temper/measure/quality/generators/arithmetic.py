"""Sums of whole numbers: two to four terms, brackets, and divisions that come out even; harder ones where asked for."""

from __future__ import annotations

from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing, shown
from temper.measure.quality.generators.working import difference, product, quotient, total


def _asked(text: str, value: int | Fraction, steps: list[str], level: int) -> Question:
    return Question(f"What is {text}?", Fraction(value), steps=tuple(steps), level=level)


def _two(d: Draws) -> Question:
    sign = d.one("sign", "+-×")
    top = 20 if sign == "×" else d.one("top", (20, 100, 1000))
    a, b = d.number("a", 2, top), d.number("b", 2, top)
    value, work = {"+": (a + b, total), "-": (a - b, difference), "×": (a * b, product)}[sign]
    level = {20: 1, 100: 2, 1000: 3}[top] if sign != "×" else 1 if a <= 12 and b <= 12 else 2
    return _asked(f"{a} {sign} {b}", value, work(a, b), level)


def _chain(d: Draws) -> Question:
    terms = [d.number(f"term_{at}", 1, 60) for at in range(d.one("num_terms", (3, 4)))]
    text, value, steps = str(terms[0]), terms[0], list[str]()
    for at, term in enumerate(terms[1:], 1):
        sign = d.one(f"sign_{at}", (1, -1))
        text = f"{text} {'+' if sign > 0 else '-'} {term}"
        steps += total(value, term) if sign > 0 else difference(value, term)
        value += sign * term
    return _asked(text, value, [*steps, f"{text} = {value}"], 2)


def _brackets(d: Draws) -> Question:
    a, b, c = d.number("a", 2, 12), d.number("b", 1, 20), d.number("c", 1, 20)
    text = f"{a} × ({b} + {c})"
    return _asked(text, a * (b + c), [*total(b, c), *product(a, b + c), f"{text} = {a * (b + c)}"], 2)


def _division(d: Draws) -> Question:
    a, b, c = d.number("a", 2, 12), d.number("b", 2, 12), d.number("c", 1, 30)
    text = f"{a * b} ÷ {a} + {c}"
    return _asked(text, b + c, [*quotient(a * b, a), *total(b, c), f"{text} = {b + c}"], 2)


def _long_chain(d: Draws) -> Question:
    """Sums and products mixed: products go first."""
    num_terms = d.one("num_terms", (4, 5))
    at = d.one("product_at", tuple(range(num_terms)))
    terms = [d.number(f"term_{index}", 2, 90) for index in range(num_terms)]
    a, b = d.number("a", 3, 12), d.number("b", 3, 12)
    signs = [1, *(d.one(f"sign_{index}", (1, -1)) for index in range(1, num_terms))]
    terms[at] = a * b
    text = "".join(
        f"{'' if not index else ' + ' if sign > 0 else ' - '}{f'{a} × {b}' if index == at else term}"
        for index, (sign, term) in enumerate(zip(signs, terms, strict=True))
    )
    steps, value = product(a, b), terms[0]
    for sign, term in zip(signs[1:], terms[1:], strict=True):
        steps += total(value, term) if sign > 0 else difference(value, term)
        value += sign * term
    return _asked(text, value, [*steps, f"{text} = {value}"], 4)


def _two_brackets(d: Draws) -> Question:
    a, b, c, e = d.number("a", 5, 60), d.number("b", 5, 60), d.number("c", 20, 60), d.number("d", 2, 19)
    f = d.number("e", 10, 200)
    text, value = f"({a} + {b}) × ({c} - {e}) - {f}", (a + b) * (c - e) - f
    steps = [*total(a, b), *difference(c, e), *product(a + b, c - e), *difference((a + b) * (c - e), f)]
    return _asked(text, value, [*steps, f"{text} = {value}"], 5)


def _large_product(d: Draws) -> Question:
    a, b = d.number("a", 101, 999), d.number("b", 12, 99)
    return _asked(f"{a} × {b}", a * b, product(a, b), 5)


def _percentage(d: Draws) -> Question:
    percent, whole = d.one("percent", (5, 15, 20, 25, 35, 40, 60, 75), number=True), d.number("whole", 2, 60) * 20
    value = percent * whole // 100
    steps = [*product(whole, percent), f"{whole * percent} ÷ 100 = {value}"]
    return _asked(f"{percent} percent of {whole}", value, steps, 4)


def _remainder(d: Draws) -> Question:
    by, times = d.number("by", 3, 24), d.number("times", 3, 40)
    rest = d.number("rest", 0, by - 1)
    whole = by * times + rest
    steps = [*product(by, times), *difference(whole, by * times)]
    return _asked(f"the remainder when {whole} is divided by {by}", rest, steps, 4)


def _fractions(d: Draws) -> Question:
    b, e = d.number("b", 2, 9), d.number("d", 2, 9)
    a, c = d.number("a", 1, b), d.number("c", 1, e)
    value, below = Fraction(a, b) + Fraction(c, e), b * e
    top = a * e + c * b
    steps = [f"{a}/{b} = {a * e}/{below}", f"{c}/{e} = {c * b}/{below}", f"{a * e} + {c * b} = {top}"]
    last = (
        f"{top}/{below} = {shown(value)}" if f"{top}/{below}" != shown(value) else f"{a}/{b} + {c}/{e} = {top}/{below}"
    )
    return _asked(f"{a}/{b} + {c}/{e}, as a number or a fraction in lowest terms", value, [*steps, last], 4)


TWO = Template("arithmetic.two", _two)
TEMPLATES = (
    TWO,
    Template("arithmetic.chain", _chain),
    Template("arithmetic.brackets", _brackets),
    Template("arithmetic.division", _division),
    Template("arithmetic.long_chain", _long_chain, extra=True),
    Template("arithmetic.two_brackets", _two_brackets, extra=True),
    Template("arithmetic.large_product", _large_product, extra=True),
    Template("arithmetic.percentage", _percentage, extra=True),
    Template("arithmetic.remainder", _remainder, extra=True),
    Template("arithmetic.fractions", _fractions, extra=True),
)
MIX = (TWO, *TEMPLATES[:4])
"""What the suite asks: simple sums twice as often as each other kind."""

question = drawing(MIX)
