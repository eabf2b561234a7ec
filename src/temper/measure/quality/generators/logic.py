"""Small deductions: who stands where in an order, whether a statement follows, what a Boolean expression says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing

_NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
_KINDS = ("glims", "torvs", "plaks", "wens", "drubs", "fonks", "zibs", "morls")
YES_NO = ("yes", "no")


def _order(d: Draws) -> Question:
    """Neighbours in an order of people, told in any sequence: the order is then the only one that fits."""
    people = d.several("people", _NAMES, d.one("count", (3, 4, 5)))
    facts = d.shuffled("facts", [f"{a} is taller than {b}" for a, b in itertools.pairwise(people)])
    place, word = d.one("asked", ((0, "tallest"), (-1, "shortest")))
    steps = [f"Nobody is said to be taller than {people[0]}, so {people[0]} comes first."]
    steps += [f"{a} is taller than {b}, so {b} comes next." for a, b in itertools.pairwise(people)]
    steps.append(f"From tallest to shortest: {', '.join(people)}. The {word} is {people[place]}.")
    return Question(
        f"{'. '.join(facts)}. Who is the {word}? Answer with the name.",
        people[place],
        tuple(sorted(people)),
        steps=tuple(steps),
        level=len(people) - 2,
    )


def _syllogism(d: Draws) -> Question:
    """A chain of "all … are …"; the question follows it, turns it round, or leaves it."""
    a, b, c, other = d.several("kinds", _KINDS, 4)
    forward = f"All {a} are {b}, and all {b} are {c}, so all {a} are {c}."
    asked, answer, *steps = d.one(
        "asked",
        (
            (f"Must every one of the {a} be one of the {c}?", "yes", forward),
            (
                f"Must every one of the {c} be one of the {a}?", "no", forward,
                f"Nothing says that all {c} are {a}: there may be other {c}.",
            ),
            (
                f"Can one of the {a} be one of the {other}?", "no", forward,
                f"No {c} are {other}, so none of the {a} can be one of the {other}.",
            ),
        ),
    )  # fmt: skip
    told = f"All {a} are {b}. All {b} are {c}. No {c} are {other}."
    return Question(f"{told} {asked} Answer yes or no.", answer, YES_NO, steps=tuple(steps), level=2)


def _truth(d: Draws) -> Question:
    p, q, r = (d.coin(name) for name in "PQR")
    not_q_r = q or not r
    text, value, *steps = d.one(
        "statement",
        (
            ("(P and Q) or R", (p and q) or r, f"P and Q is {_said(p and q)}.", f"R is {_said(r)}."),
            (
                "(P or Q) and not R", (p or q) and not r, f"P or Q is {_said(p or q)}.",
                f"R is {_said(r)}, so not R is {_said(not r)}.",
            ),
            (
                "not (P and Q) and R", not (p and q) and r,
                f"P and Q is {_said(p and q)}, so not (P and Q) is {_said(not (p and q))}.", f"R is {_said(r)}.",
            ),
            (
                "P and (Q or not R)", p and not_q_r,
                f"Not R is {_said(not r)} and Q is {_said(q)}, so Q or not R is {_said(not_q_r)}.", f"P is {_said(p)}.",
            ),
        ),
    )  # fmt: skip
    given = ", ".join(f"{name} is {_said(is_true)}" for name, is_true in zip("PQR", (p, q, r), strict=True))
    return Question(
        f"{given}. Is the statement '{text}' true? Answer yes or no.",
        "yes" if value else "no",
        YES_NO,
        steps=(*steps, f"So {text} is {_said(value)}."),
        level=3,
    )


def _said(value: bool) -> str:
    return "true" if value else "false"


def _knights(d: Draws) -> Question:
    """Two people, each always honest or always lying; drawn again until only one reading fits."""
    one, two = d.several("people", _NAMES, 2)
    fitting: list[tuple[bool, bool]] = []
    while len(fitting) != 1:
        said = (d.one("first", _SAYINGS), d.one("second", _SAYINGS))
        readings = list(itertools.product((True, False), (True, False)))
        fitting = [r for r in readings if said[0][1](r[0], r[1]) == r[0] and said[1][1](r[1], r[0]) == r[1]]
    asked = d.one("asked", (0, 1))
    honest, name = fitting[0][asked], (one, two)[asked]
    steps = []
    for reading in readings:
        wrong = [
            f"{speaker} {'is honest but would say something false' if me else 'lies but would say something true'}"
            for speaker, me, other, (_, holds) in (
                (one, reading[0], reading[1], said[0]),
                (two, reading[1], reading[0], said[1]),
            )
            if holds(me, other) != me
        ]
        fits = f"{wrong[0]}, so this cannot be" if wrong else "both say what they must, so this fits"
        steps.append(f"If {one} {_nature(reading[0])} and {two} {_nature(reading[1])}: {fits}.")
    return Question(
        f"{one} and {two} each either always tell the truth or always lie. "
        f"{one} says: '{said[0][0].format(other=two)}' {two} says: '{said[1][0].format(other=one)}' "
        f"Does {name} tell the truth? Answer yes or no.",
        "yes" if honest else "no",
        YES_NO,
        steps=(*steps, f"Only one reading fits, and in it {name} {_nature(honest)}."),
        level=4,
    )


def _nature(honest: bool) -> str:
    return "tells the truth" if honest else "lies"


_SAYINGS: tuple[tuple[str, Callable[[bool, bool], bool]], ...] = (
    ("{other} lies.", lambda me, other: not other),
    ("{other} tells the truth.", lambda me, other: other),
    ("We are both the same.", lambda me, other: me == other),
    ("We are not the same.", lambda me, other: me != other),
    ("At least one of us lies.", lambda me, other: not (me and other)),
    ("We both lie.", lambda me, other: not me and not other),
)
"""What one may say of oneself and the other, and when it is true."""


def _seats(d: Draws) -> Question:
    """People on numbered seats: enough facts are told that one arrangement is left."""
    people = d.several("people", _NAMES, 4)
    facts = [f"{people[0]} sits in seat 1", f"{people[3]} sits right of {people[2]}, in the next seat"]
    last = f"{people[1]} does not sit in seat 4"
    told = d.shuffled("facts", [*facts, last])
    asked = d.one("asked", (1, 2, 3))
    steps = (
        f"{people[0]} sits in seat 1, so seats 2, 3 and 4 are left.",
        f"{people[2]} and {people[3]} sit side by side in that order: in seats 2 and 3, or in seats 3 and 4.",
        f"In seats 2 and 3 they would leave seat 4 to {people[1]}, who does not sit there.",
        f"So {people[2]} sits in seat 3, {people[3]} in seat 4 and {people[1]} in seat 2.",
        f"{people[asked]} sits in seat {asked + 1}.",
    )
    return Question(
        f"Four people sit in a row, in seats 1 to 4 from left to right: {', '.join(sorted(people))}. "
        f"{'. '.join(told)}. In which seat does {people[asked]} sit?",
        Fraction(asked + 1),
        steps=steps,
        level=5,
    )


MIX = (
    Template("logic.order", _order),
    Template("logic.syllogism", _syllogism),
    Template("logic.truth", _truth),
)
TEMPLATES = (*MIX, Template("logic.knights", _knights, extra=True), Template("logic.seats", _seats, extra=True))

question = drawing(MIX)
