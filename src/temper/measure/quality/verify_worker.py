"""The process that verifies maths: a question a line on standard input, `true`, `false` or `null` on standard output.

Run by path with `python -I`, so it imports nothing of Temper. An expression is parsed as Python's grammar has it and
rebuilt from a list of known operations; it is never evaluated.
"""

from __future__ import annotations

import ast
import json
import re
import resource
import sys
from typing import Any

MEMORY_BYTES = 2 << 30
MAX_EXPONENT = 64
MAX_DIGITS = 40
FUNCTIONS = ("sqrt", "sin", "cos", "tan", "exp", "log", "ln", "Abs", "abs")
CONSTANTS = {"pi": "pi", "π": "pi", "e": "E", "E": "E"}
SYMBOLS = "abcdktmnpqrstuvwxyz"

_LATEX = (
    (re.compile(r"\\(?:left|right|,|;|!|displaystyle)"), ""),
    (re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\sqrt\{([^{}]+)\}"), r"sqrt(\1)"),
    (re.compile(r"\\(?:cdot|times)"), "*"),
    (re.compile(r"\\(sin|cos|tan|exp|log|ln|pi)"), r"\1"),
    (re.compile(r"√\s*\(?(\w+)\)?"), r"sqrt(\1)"),
)
_SIGNS = {"×": "*", "·": "*", "÷": "/", "−": "-", "²": "**2", "³": "**3", "^": "**", "{": "(", "}": ")", "$": ""}
_IMPLICIT = re.compile(r"(?<=\d)\s*(?=[a-zA-Zπ(])|(?<=\))\s*(?=[\w(])|(?<=\b[xyz])\s*(?=\()")


class NotAnExpression(Exception):
    """The text cannot be read as maths."""


def read(text: str) -> Any:
    """A sympy expression.

    Raises:
        NotAnExpression: it holds anything but numbers, known symbols, known functions and arithmetic.
    """
    for pattern, into in _LATEX:
        text = pattern.sub(into, text)
    for sign, into in _SIGNS.items():
        text = text.replace(sign, into)
    text = text.strip().rstrip(".,;")
    text = re.sub(r"(?:^|.*[^<>=!])=(?!=)", "", text)  # "x = 5" and "f'(x) = 2x" say what stands on the right
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = _IMPLICIT.sub("*", text)
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotAnExpression(text) from None
    return _built(tree.body)


def _built(node: ast.AST) -> Any:
    import sympy

    match node:
        case ast.Constant(value=int() | float() as value) if value is not True and len(str(value)) < MAX_DIGITS:
            return sympy.Rational(str(value))
        case ast.Name(id=name) if name in CONSTANTS:
            return getattr(sympy, CONSTANTS[name])
        case ast.Name(id=name) if name in SYMBOLS:
            return sympy.Symbol(name, real=True)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_built(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _built(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, exponent = _built(left), _built(right)
            if exponent.is_number and abs(exponent) > MAX_EXPONENT:
                raise NotAnExpression("the exponent is too large")
            if base.is_number and not exponent.is_number and exponent.has(sympy.Pow):
                raise NotAnExpression("a tower of powers")
            return base**exponent
        case ast.BinOp(left=left, op=operation, right=right):
            a, b = _built(left), _built(right)
            match operation:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div() if b != 0:
                    return a / b
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            return getattr(sympy, {"ln": "log", "abs": "Abs"}.get(name, name))(_built(argument))
    raise NotAnExpression(type(node).__name__)


def equal(given: str, right: str) -> bool | None:
    """Whether they are proven equal; None where neither that nor the contrary could be shown."""
    import sympy

    try:
        a, b = read(given), read(right)
    except NotAnExpression:
        return False
    difference = a - b
    if difference == 0:
        return True
    # Two points settle most wrong answers at once; only agreement is worth a proof.
    for point in (sympy.Rational(7, 5), sympy.Rational(13, 11)):
        value = difference.subs(dict.fromkeys(difference.free_symbols, point)).evalf()
        if value.is_number and value.is_finite and abs(value) > 1e-6:
            return False
    return True if sympy.expand(difference) == 0 or sympy.simplify(difference) == 0 else None


def main() -> None:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin:
        question = json.loads(line)
        try:
            found = equal(question["given"], question["right"])
        except (ArithmeticError, AttributeError, MemoryError, RecursionError, TypeError, ValueError):
            found = None  # what a model writes may trip sympy anywhere: it is then undecided
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
