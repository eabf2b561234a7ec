"""Conversions that come out exactly: length, mass, time, volume, money and temperature."""

from __future__ import annotations

from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing, shown
from temper.measure.quality.generators.working import quotient

_FACTORS: tuple[tuple[str, str, int], ...] = (
    ("kilometres", "metres", 1000),
    ("metres", "centimetres", 100),
    ("centimetres", "millimetres", 10),
    ("kilograms", "grams", 1000),
    ("tonnes", "kilograms", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("litres", "millilitres", 1000),
    ("feet", "inches", 12),
    ("dollars", "cents", 100),
)


def _down(d: Draws) -> Question:
    large, small, factor = d.one("units", _FACTORS)
    amount = Fraction(d.number("amount", 2, 60), d.one("parts", (1, 1, 2)))
    steps = (f"One of the {large} is {factor} {small}.", f"{shown(amount)} × {factor} = {shown(amount * factor)}")
    return Question(
        f"How many {small} are {shown(amount)} {large}?", amount * factor, steps=steps, level=1 + (factor % 10 > 0)
    )


def _up(d: Draws) -> Question:
    large, small, factor = d.one("units", _FACTORS)
    amount = d.number("amount", 2, 30)
    steps = (f"{factor} {small} are one of the {large}.", *quotient(amount * factor, factor))
    return Question(f"How many {large} are {amount * factor} {small}?", Fraction(amount), steps=steps, level=2)


def _temperature(d: Draws) -> Question:
    celsius = d.number("fives", -6, 20) * 5
    steps = (
        "Fahrenheit is Celsius times 9, divided by 5, plus 32.",
        f"{celsius} × 9 = {celsius * 9}",
        f"{celsius * 9} ÷ 5 = {celsius * 9 // 5}",
        f"{celsius * 9 // 5} + 32 = {celsius * 9 // 5 + 32}",
    )
    return Question(
        f"What is {celsius} degrees Celsius in degrees Fahrenheit?",
        Fraction(celsius * 9, 5) + 32,
        steps=steps,
        level=3,
    )


def _speed(d: Draws) -> Question:
    speed = d.number("fives", 1, 20) * 5
    steps = (
        "An hour has 3600 seconds, and a kilometre 1000 metres.",
        f"{speed} × 3600 = {speed * 3600}",
        f"{speed * 3600} ÷ 1000 = {shown(Fraction(speed * 18, 5))}",
    )
    return Question(
        f"How many kilometres per hour are {speed} metres per second?", Fraction(speed * 18, 5), steps=steps, level=3
    )


DOWN = Template("units.down", _down)
TEMPLATES = (
    DOWN,
    Template("units.up", _up),
    Template("units.temperature", _temperature),
    Template("units.speed", _speed),
)
MIX = (DOWN, *TEMPLATES)
"""What the suite asks: to smaller units twice as often."""

question = drawing(MIX)
