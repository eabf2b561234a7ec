"""Manufacturing: takt, yield, effectiveness, capability, tolerances, stock, control charts and bottlenecks."""

from __future__ import annotations

from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing, rounded, shown
from temper.measure.quality.generators.working import difference, product, quotient, total

_PARTS = ("brackets", "gears", "housings", "valves", "rotors", "hinges", "bearings")
_STATIONS = ("cutting", "drilling", "milling", "welding", "painting", "assembly", "packing")
CONTROL = ("in control", "out of control")


def _line(text: str, value: Fraction, places: int) -> str:
    near = rounded(value, places)
    return f"{text} {'=' if near == value else '≈'} {shown(near)}"


def _takt(d: Draws) -> Question:
    parts, seconds, demand = d.thing("parts", _PARTS), d.number("seconds", 2, 30) * 6, d.number("demand", 2, 40) * 10
    minutes = seconds * demand // 60
    return Question(
        f"A line works {minutes} minutes a shift, and {demand} {parts} are wanted a shift. "
        f"What is the takt time in seconds?",
        Fraction(seconds),
        steps=("The shift in seconds:", *product(minutes, 60), "For each part:", *quotient(minutes * 60, demand)),
        level=2,
    )  # fmt: skip


def _rolled_yield(d: Draws) -> Question:
    one, two = d.number("one", 80, 99), d.number("two", 80, 99)
    return Question(
        f"Of the parts that enter a first step {one} percent are good, and of those {two} percent are good after a "
        f"second "
        f"step. What percentage of the parts are good after both? Give two decimal places.",
        Fraction(one * two, 100),
        steps=(*product(one, two), f"{one * two} ÷ 100 = {shown(Fraction(one * two, 100))}"),
        level=3,
    )  # fmt: skip


def _effectiveness(d: Draws) -> Question:
    available, speed, good = (d.number(name, 60, 99) for name in ("available", "speed", "good"))
    two = available * speed
    whole = Fraction(two * good, 10000)
    return Question(
        f"A machine has an availability of {available} percent, a performance of {speed} percent and a quality rate of "
        f"{good} percent. What is its overall equipment effectiveness in percent? Round to one decimal place.",
        rounded(whole, 1),
        steps=(*product(available, speed), f"{two} ÷ 100 = {shown(Fraction(two, 100))}",
               _line(f"{shown(Fraction(two, 100))} × {good} ÷ 100", whole, 1)),
        level=4,
    )  # fmt: skip


def _defects(d: Draws) -> Question:
    parts, units = d.thing("parts", _PARTS), d.one("units", (500, 1000, 2000, 5000, 10000), number=True)
    bad = d.number("bad", 1, 60)
    ppm = bad * 1000000 // units
    return Question(
        f"{bad} of {units} {parts} are defective. How many parts per million is that?",
        Fraction(ppm),
        steps=(f"1000000 ÷ {units} = {1000000 // units}", *product(bad, 1000000 // units)),
        level=2,
    )  # fmt: skip


def _capability(d: Draws) -> Question:
    middle, half = d.number("middle", 20, 90), d.number("half", 2, 9)
    off, sigma = Fraction(d.number("off", -9, 9), 10), Fraction(d.one("sigma", (2, 4, 5, 8, 10), number=True), 10)
    mean, low, high = middle + off, middle - half, middle + half
    spread = 3 * sigma
    upper, lower = (high - mean) / spread, (mean - low) / spread
    value = rounded(min(upper, lower), 2)
    return Question(
        f"A bore must measure between {low} and {high} mm. The process has a mean of {shown(mean)} mm and a standard "
        f"deviation of {shown(sigma)} mm. What is its Cpk? Round to two decimal places.",
        value,
        steps=(f"3 × {shown(sigma)} = {shown(spread)}",
               f"To the upper limit: {high} - {shown(mean)} = {shown(high - mean)}",
               _line(f"{shown(high - mean)} ÷ {shown(spread)}", upper, 2),
               f"To the lower limit: {shown(mean)} - {low} = {shown(mean - low)}",
               _line(f"{shown(mean - low)} ÷ {shown(spread)}", lower, 2), f"The smaller one is {shown(value)}."),
        level=5,
    )  # fmt: skip


def _tolerances(d: Draws) -> Question:
    lengths = [d.number(f"length_{at}", 10, 80) for at in range(3)]
    tenths = [d.number(f"tenths_{at}", 1, 5) for at in range(3)]
    parts = list(zip(lengths, tenths, strict=True))
    most = [length + Fraction(tenth, 10) for length, tenth in parts]
    told = ", ".join(f"{length} mm ± 0.{tenth} mm" for length, tenth in parts)
    first = most[0] + most[1]
    return Question(
        f"Three parts are laid end to end: {told}. How long in mm can they be together at most?",
        sum(most, Fraction(0)),
        steps=(*(f"{length} + 0.{tenth} = {shown(length + Fraction(tenth, 10))}" for length, tenth in parts),
               f"{shown(most[0])} + {shown(most[1])} = {shown(first)}",
               f"{shown(first)} + {shown(most[2])} = {shown(first + most[2])}"),
        level=3,
    )  # fmt: skip


def _reorder(d: Draws) -> Question:
    parts, daily, lead, safety = (
        d.thing("parts", _PARTS), d.number("daily", 5, 90), d.number("lead", 2, 15), d.number("safety", 10, 200),
    )  # fmt: skip
    return Question(
        f"{daily} {parts} are used a day, an order takes {lead} days to arrive, and {safety} are kept as safety stock. "
        f"At which stock must one order again?",
        Fraction(daily * lead + safety),
        steps=("Used until the order arrives:", *product(daily, lead), "With the safety stock:",
               *total(daily * lead, safety)),
        level=2,
    )  # fmt: skip


def _order_quantity(d: Draws) -> Question:
    quantity, holding = d.number("quantity", 2, 30) * 10, d.one("holding", (1, 2, 4, 5), number=True)
    cost = d.one("cost", (5, 10, 20, 25, 50), number=True)
    demand = quantity * quantity * holding // (2 * cost)
    if 2 * demand * cost != quantity * quantity * holding:  # keep it whole: the next cost that divides
        cost = 5
        demand = quantity * quantity * holding // 10
    top = 2 * demand * cost
    return Question(
        f"The economic order quantity is the square root of 2 × demand × order cost ÷ holding cost. A plant needs "
        f"{demand} "
        f"parts a year, an order costs {cost} dollars, and to hold a part for a year costs {holding} dollars. What "
        f"is the "
        f"economic order quantity?",
        Fraction(quantity),
        steps=(f"2 × {demand} × {cost} = {top}", f"{top} ÷ {holding} = {quantity * quantity}",
               f"{quantity} × {quantity} = {quantity * quantity}", f"So the square root is {quantity}."),
        level=5,
    )  # fmt: skip


def _control_chart(d: Draws) -> Question:
    mean, sigma = d.number("mean", 40, 90), d.number("sigma", 1, 4)
    values = [mean + d.number(f"off_{at}", -10, 10) for at in range(5)]
    low, high = mean - 3 * sigma, mean + 3 * sigma
    outside = [value for value in values if not low <= value <= high]
    shown_values = ", ".join(map(str, values))
    last = f"{outside[0]} lies outside" if outside else "all values lie within"
    return Question(
        f"A process has a mean of {mean} and a standard deviation of {sigma}. It is out of control when a value lies "
        f"more "
        f"than 3 standard deviations from the mean. The last values are {shown_values}. Is it in control or out of "
        f"control?",
        CONTROL[bool(outside)], CONTROL,
        steps=(*product(3, sigma), *difference(mean, 3 * sigma), *total(mean, 3 * sigma),
               f"The limits are {low} and {high}; {last}."),
        level=3,
    )  # fmt: skip


def _bottleneck(d: Draws) -> Question:
    names = d.several("stations", _STATIONS, 4)
    slowest = d.one("slowest", (0, 1, 2, 3))
    longest = d.one("longest", (60, 72, 75, 80, 90, 100), number=True)
    times = [longest - d.number(f"less_{at}", 3, 25) for at in range(4)]
    times[slowest] = longest
    told = ", ".join(f"{name} {time} s" for name, time in zip(names, times, strict=True))
    return Question(
        f"A line has four stations with these cycle times: {told}. How many parts an hour can the line make at most?",
        Fraction(3600 // longest),
        steps=(f"The slowest station is {names[slowest]} with {longest} s.", *quotient(3600, longest)),
        level=2,
    )  # fmt: skip


MIX = TEMPLATES = (
    Template("manufacturing.takt", _takt),
    Template("manufacturing.rolled_yield", _rolled_yield),
    Template("manufacturing.effectiveness", _effectiveness),
    Template("manufacturing.defects", _defects),
    Template("manufacturing.capability", _capability),
    Template("manufacturing.tolerances", _tolerances),
    Template("manufacturing.reorder", _reorder),
    Template("manufacturing.order_quantity", _order_quantity),
    Template("manufacturing.control_chart", _control_chart),
    Template("manufacturing.bottleneck", _bottleneck),
)

question = drawing(MIX)
