"""Expressions to expand, derive, integrate or solve. Any equal form of the answer counts (see `verify`)."""

from __future__ import annotations

from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing


def _number(d: Draws, name: str, low: int = -9, high: int = 9) -> int:
    return d.one(name, [value for value in range(low, high + 1) if value], number=True)


def _expand(d: Draws) -> Question:
    a, b, c, e = (_number(d, name) for name in "abcd")
    text = f"({_term(a, 'x')} {_signed(b)}) * ({_term(c, 'x')} {_signed(e)})"
    steps = (
        f"The term with x^2: ({a}) × ({c}) = {a * c}",
        f"The terms with x: ({a}) × ({e}) + ({b}) × ({c}) = {a * e + b * c}",
        f"The term without x: ({b}) × ({e}) = {b * e}",
    )
    return Question(
        f"Expand {text} into a polynomial in x.",
        f"({a})*({c})*x**2 + ({a * e + b * c})*x + ({b * e})",
        steps=steps,
        level=2,
    )


def _derivative(d: Draws) -> Question:
    a, b, c = (_number(d, name) for name in "abc")
    power = d.number("power", 2, 5)
    text = f"{_term(a, f'x^{power}')} {_signed(b)}*x {_signed(c)}"
    steps = (
        f"The power comes down and falls by one: ({a}) × {power} = {a * power}, and {power} - 1 = {power - 1}",
        f"The term with x leaves its factor {b}, and the constant leaves nothing.",
    )
    return Question(
        f"What is the derivative of {text} with respect to x?", f"({a * power})*x**{power - 1} + ({b})",
        steps=steps, level=2,
    )  # fmt: skip


def _product_rule(d: Draws) -> Question:
    a, function = _number(d, "a", 2, 9), d.one("function", ("sin", "cos", "exp"))
    inner = {"sin": f"cos({a}*x)", "cos": f"-sin({a}*x)", "exp": f"exp({a}*x)"}[function]
    steps = (
        "The derivative of a product is the first factor's derivative times the second, plus the first times the "
        "second's.",
        f"The first factor x has the derivative 1; the second, {function}({a}*x), has {a}*({inner}).",
    )
    return Question(
        f"What is the derivative of x*{function}({a}*x) with respect to x?", f"{function}({a}*x) + x*{a}*{inner}",
        steps=steps, level=3,
    )  # fmt: skip


def _linear(d: Draws) -> Question:
    a, c, x = _number(d, "a"), _number(d, "c"), _number(d, "x", -12, 12)
    while a == c:
        c = _number(d, "c")
    b = _number(d, "b", -20, 20)
    right = (a - c) * x + b
    steps = (
        f"The terms with x on one side: ({a}) - ({c}) = {a - c}",
        f"The numbers on the other: ({right}) - ({b}) = {right - b}",
        f"({right - b}) ÷ ({a - c}) = {x}",
    )
    return Question(f"Solve for x: {_term(a, 'x')} {_signed(b)} = {_term(c, 'x')} {_signed(right)}. "
                    "Give the value of x.", Fraction(x), steps=steps, level=2)  # fmt: skip


def _root(d: Draws) -> Question:
    root, inside = d.number("root", 2, 9), d.one("inside", (2, 3, 5, 6, 7), number=True)
    steps = (f"{root * root * inside} = {root * root} × {inside}", f"The root of {root * root} is {root}.")
    return Question(f"Simplify sqrt({root * root * inside}).", f"{root}*sqrt({inside})", steps=steps, level=1)


def _term(factor: int, symbol: str) -> str:
    return {1: symbol, -1: f"-{symbol}"}.get(factor, f"{factor}*{symbol}")


def _signed(value: int) -> str:
    return f"{'+' if value >= 0 else '-'} {abs(value)}"


MIX = TEMPLATES = (
    Template("algebra.expand", _expand),
    Template("algebra.derivative", _derivative),
    Template("algebra.product_rule", _product_rule),
    Template("algebra.linear", _linear),
    Template("algebra.root", _root),
)

question = drawing(MIX)
