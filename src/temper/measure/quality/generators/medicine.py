"""Medicine: doses, infusions, dilutions, scores and rules that are told in the question.

Exercises in careful arithmetic and in following a rule. They are no medical advice, and their limits are made up.
"""

from __future__ import annotations

from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing, rounded, shown
from temper.measure.quality.generators.working import difference, product, quotient, total

_DRUGS = ("abraxin", "belorin", "cortamol", "dexavil", "elvadine", "fenoril", "galamex")
YES_NO = ("yes", "no")
COLOURS = ("red", "yellow", "green")


def _dose_by_weight(d: Draws) -> Question:
    drug, weight, each = d.thing("drug", _DRUGS), d.number("weight", 8, 90), d.number("each", 2, 15)
    times = d.one("times", (2, 3, 4), number=True)
    return Question(
        f"A patient of {weight} kg gets {each} mg of {drug} per kg and day, in {times} equal doses. "
        f"How many mg is one dose? Round to one decimal place.",
        rounded(Fraction(weight * each, times), 1),
        steps=("For a day:", *product(weight, each), "One dose:",
               _rounded_line(f"{weight * each} ÷ {times}", Fraction(weight * each, times), 1)),
        level=2,
    )  # fmt: skip


def _tablets(d: Draws) -> Question:
    drug, tablet = d.thing("drug", _DRUGS), d.one("tablet", (25, 50, 100, 250), number=True)
    per_dose, times, days = d.number("per_dose", 1, 4), d.number("times", 2, 4), d.number("days", 3, 21)
    return Question(
        f"A patient takes {tablet * per_dose} mg of {drug} {times} times a day for {days} days. A tablet has "
        f"{tablet} mg. "
        f"How many tablets are needed?",
        Fraction(per_dose * times * days),
        steps=("Tablets a dose:", *quotient(tablet * per_dose, tablet), "Tablets a day:", *product(per_dose, times),
               "In all:", *product(per_dose * times, days)),
        level=3,
    )  # fmt: skip


def _infusion(d: Draws) -> Question:
    hours, rate = d.number("hours", 2, 12), d.number("rate", 20, 150)
    drops = d.one("drops", (15, 20, 60), number=True)
    volume, per_minute = hours * rate, Fraction(rate * drops, 60)
    return Question(
        f"{volume} ml are to run in over {hours} hours. The giving set makes {drops} drops a ml. "
        f"How many drops a minute is that? Round to a whole number.",
        rounded(per_minute, 0),
        steps=("Each hour:", *quotient(volume, hours), "Drops an hour:", *product(rate, drops), "Drops a minute:",
               _rounded_line(f"{rate * drops} ÷ 60", per_minute, 0)),
        level=4,
    )  # fmt: skip


def _mass_index(d: Draws) -> Question:
    weight, height = d.number("weight", 45, 120), d.number("height", 150, 199)
    metres = Fraction(height, 100)
    square = metres * metres
    return Question(
        f"What is the body mass index of a person of {weight} kg and {height} cm? Round to one decimal place.",
        rounded(weight / square, 1),
        steps=("It is the weight in kg divided by the square of the height in metres.",
               f"{height} ÷ 100 = {shown(metres)}", f"{shown(metres)} × {shown(metres)} = {shown(square)}",
               _rounded_line(f"{weight} ÷ {shown(square)}", weight / square, 1)),
        level=3,
    )  # fmt: skip


def _dilution(d: Draws) -> Question:
    factor, wanted = d.number("factor", 2, 10), d.number("wanted", 1, 9)
    volume = d.number("volume", 2, 50) * factor
    strong, taken = wanted * factor, volume // factor
    return Question(
        f"From a stock solution of {strong} mg/ml, {volume} ml of a solution of {wanted} mg/ml are to be made. "
        f"How many ml of the stock solution are needed?",
        Fraction(taken),
        steps=("The solution will hold, in mg:", *product(volume, wanted), "In the stock solution that is, in ml:",
               *quotient(volume * wanted, strong)),
        level=3,
    )  # fmt: skip


def _daily_limit(d: Draws) -> Question:
    drug, each, times = d.thing("drug", _DRUGS), d.number("each", 5, 40) * 25, d.number("times", 2, 6)
    limit = d.number("limit", 10, 100) * 50
    allowed = each * times <= limit
    return Question(
        f"At most {limit} mg of {drug} may be given a day. A patient gets {each} mg {times} times a day. "
        f"Is that within the limit? Answer yes or no.",
        "yes" if allowed else "no", YES_NO,
        steps=("In a day:", *product(each, times),
               f"{each * times} is {'not more' if allowed else 'more'} than {limit}."),
        level=2,
    )  # fmt: skip


def _clearance(d: Draws) -> Question:
    age, weight, tenths = d.number("age", 30, 90), d.number("weight", 45, 110), d.number("tenths", 6, 30)
    female = d.coin("female")
    creatinine = Fraction(tenths, 10)
    top, below = (140 - age) * weight, 72 * creatinine
    raw = top / below
    value = rounded(raw * Fraction(85, 100) if female else raw, 0)
    sums = [
        f"140 - {age} = {140 - age}",
        f"{140 - age} × {weight} = {top}",
        f"72 × {shown(creatinine)} = {shown(below)}",
    ]
    if female:
        scaled = top * Fraction(85, 100)
        sums += [
            f"{top} × 0.85 = {shown(scaled)}",
            _rounded_line(f"{shown(scaled)} ÷ {shown(below)}", scaled / below, 0),
        ]
    else:
        sums.append(_rounded_line(f"{top} ÷ {shown(below)}", raw, 0))
    return Question(
        f"By the formula of Cockcroft and Gault, (140 - age) × weight ÷ (72 × creatinine), times 0.85 for women, "
        f"what is "
        f"the creatinine clearance in ml/min of a {'woman' if female else 'man'} of {age} years and {weight} kg with a "
        f"creatinine of {shown(creatinine)} mg/dl? Round to a whole number.",
        value, steps=tuple(sums), level=5,
    )  # fmt: skip


def _anion_gap(d: Draws) -> Question:
    sodium, chloride, bicarbonate = d.number("na", 130, 150), d.number("cl", 95, 110), d.number("hco3", 12, 28)
    return Question(
        f"The anion gap is sodium less chloride and bicarbonate. What is it in mmol/l with sodium {sodium}, chloride "
        f"{chloride} and bicarbonate {bicarbonate}?",
        Fraction(sodium - chloride - bicarbonate),
        steps=(*total(chloride, bicarbonate), *difference(sodium, chloride + bicarbonate)),
        level=2,
    )  # fmt: skip


def _triage(d: Draws) -> Question:
    pulse, oxygen = d.number("pulse", 55, 150), d.number("oxygen", 84, 100)
    fever = Fraction(d.number("tenths", 362, 405), 10)
    red = pulse > 130 or oxygen < 90
    yellow = pulse > 110 or fever >= 39
    colour = "red" if red else "yellow" if yellow else "green"
    steps = [
        f"Red needs a pulse above 130 or an oxygen saturation below 90: the pulse is {pulse}, the saturation "
        f"{oxygen}, so "
        f"{'red it is' if red else 'it is not red'}."
    ]
    if not red:
        steps.append(
            f"Yellow needs a pulse above 110 or 39 degrees or more: the pulse is {pulse}, the temperature "
            f"{shown(fever)}, "
            f"so {'yellow it is' if yellow else 'it is not yellow, and green is left'}."
        )
    return Question(
        f"A ward sorts patients by the first rule that holds: red for a pulse above 130 or an oxygen saturation "
        f"below 90 "
        f"percent; yellow for a pulse above 110 or a temperature of 39 degrees or more; else green. A patient has "
        f"pulse "
        f"{pulse}, saturation {oxygen} percent and {shown(fever)} degrees. Which colour? Answer red, yellow or green.",
        colour, COLOURS, steps=tuple(steps), level=3,
    )  # fmt: skip


def _warning_score(d: Draws) -> Question:
    breaths, pressure, pulse = d.number("breaths", 8, 32), d.number("pressure", 70, 150), d.number("pulse", 45, 140)
    points = (
        2 if breaths > 24 else 1 if breaths > 20 else 0,
        3 if pressure < 90 else 1 if pressure < 100 else 0,
        2 if pulse > 120 else 1 if pulse > 100 else 0,
    )
    return Question(
        f"A score adds: 2 points for more than 24 breaths a minute, 1 for 21 to 24; 3 points for a blood pressure "
        f"below "
        f"90, 1 for 90 to 99; 2 points for a pulse above 120, 1 for 101 to 120. What is the score of a patient with "
        f"{breaths} breaths a minute, blood pressure {pressure} and pulse {pulse}?",
        Fraction(sum(points)),
        steps=(f"{breaths} breaths: {points[0]} points.", f"Blood pressure {pressure}: {points[1]} points.",
               f"Pulse {pulse}: {points[2]} points.", f"{points[0]} + {points[1]} + {points[2]} = {sum(points)}"),
        level=4,
    )  # fmt: skip


def _rounded_line(sum_text: str, value: Fraction, places: int) -> str:
    near = rounded(value, places)
    return f"{sum_text} {'=' if near == value else '≈'} {shown(near)}"


MIX = TEMPLATES = (
    Template("medicine.dose_by_weight", _dose_by_weight),
    Template("medicine.tablets", _tablets),
    Template("medicine.infusion", _infusion),
    Template("medicine.mass_index", _mass_index),
    Template("medicine.dilution", _dilution),
    Template("medicine.daily_limit", _daily_limit),
    Template("medicine.clearance", _clearance),
    Template("medicine.anion_gap", _anion_gap),
    Template("medicine.triage", _triage),
    Template("medicine.warning_score", _warning_score),
)

question = drawing(MIX)
