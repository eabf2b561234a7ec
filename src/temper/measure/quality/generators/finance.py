"""Finance: interest, margins, exchange, depreciation, break-even, present value, and reading an invoice."""

from __future__ import annotations

import json
from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing, rounded, shown
from temper.measure.quality.generators.working import difference, product, quotient, total

_FIRMS = ("Alder Ltd", "Birch & Co", "Cedar Works", "Dunes Trading", "Elm Foods", "Fjord Paper", "Grove Tools")
YES_NO = ("yes", "no")


def _simple_interest(d: Draws) -> Question:
    principal, rate, years = d.number("hundreds", 2, 90) * 100, d.number("rate", 2, 9), d.number("years", 2, 9)
    yearly = principal * rate // 100
    return Question(
        f"A loan of {principal} dollars bears simple interest of {rate} percent a year. "
        f"How many dollars of interest are due after {years} years?",
        Fraction(yearly * years),
        steps=("Interest for one year:", f"{principal} × {rate} ÷ 100 = {yearly}", f"For {years} years:",
               *product(yearly, years)),
        level=2,
    )  # fmt: skip


def _compound_interest(d: Draws) -> Question:
    principal, rate, years = d.number("hundreds", 5, 60) * 100, d.number("rate", 2, 9), d.one("years", (2, 3))
    balance, steps = Fraction(principal), list[str]()
    for year in range(1, years + 1):
        interest = balance * rate / 100
        cents = rounded(interest, 2)
        sign = "=" if cents == interest else "≈"
        steps += [
            f"Year {year}: {shown(balance)} × {rate} ÷ 100 {sign} {shown(cents)}",
            f"{shown(balance)} + {shown(cents)} = {shown(balance + cents)}",
        ]
        balance += cents
    return Question(
        f"{principal} dollars are saved at {rate} percent a year. Interest is added at the end of each year, rounded "
        f"to "
        f"the cent. How many dollars are there after {years} years?",
        balance, steps=tuple(steps), level=4,
    )  # fmt: skip


def _margin(d: Draws) -> Question:
    firm, revenue, percent = d.thing("firm", _FIRMS), d.number("thousands", 2, 90) * 1000, d.number("margin", 3, 45)
    profit = revenue * percent // 100
    return Question(
        f"{firm} takes in {revenue} dollars and spends {revenue - profit} dollars. "
        f"What is its profit margin in percent of what it takes in?",
        Fraction(percent),
        steps=("Profit:", f"{revenue} - {revenue - profit} = {profit}", "As a share of the revenue:",
               f"{profit} × 100 ÷ {revenue} = {percent}"),
        level=2,
    )  # fmt: skip


def _exchange(d: Draws) -> Question:
    amount, rate = d.number("hundreds", 1, 90) * 100, Fraction(d.number("rate", 60, 190), 100)
    fee = d.one("fee", (1, 2, 5), number=True)
    changed = amount * rate
    kept = changed * fee / 100
    return Question(
        f"One euro buys {shown(rate)} dollars, and the bank keeps {fee} percent of the dollars as a fee. "
        f"How many dollars does one get for {amount} euros?",
        changed - kept,
        steps=("Before the fee:", f"{amount} × {shown(rate)} = {shown(changed)}", "The fee:",
               f"{shown(changed)} × {fee} ÷ 100 = {shown(kept)}",
               f"{shown(changed)} - {shown(kept)} = {shown(changed - kept)}"),
        level=3,
    )  # fmt: skip


def _depreciation(d: Draws) -> Question:
    life, yearly = d.number("life", 3, 10), d.number("yearly", 2, 40) * 100
    rest, years = d.number("rest", 0, 30) * 100, d.number("years", 1, life - 1)
    cost = life * yearly + rest
    return Question(
        f"A machine costs {cost} dollars and is worth {rest} dollars after {life} years. With straight-line "
        f"depreciation, how many dollars is it worth in the books after {years} years?",
        Fraction(cost - yearly * years),
        steps=("To be written off:", f"{cost} - {rest} = {cost - rest}", "Each year:", *quotient(cost - rest, life),
               f"In {years} years:", *product(yearly, years), "Left:", *difference(cost, yearly * years)),
        level=3,
    )  # fmt: skip


def _break_even(d: Draws) -> Question:
    price, gain, units = d.number("price", 20, 90), d.number("gain", 3, 18), d.number("units", 20, 400)
    fixed, variable = gain * units, price - gain
    return Question(
        f"A product sells at {price} dollars and costs {variable} dollars to make. Fixed costs are {fixed} dollars. "
        f"How many must be sold to break even?",
        Fraction(units),
        steps=("Each one sold brings:", *difference(price, variable), "To cover the fixed costs:",
               *quotient(fixed, gain)),
        level=3,
    )  # fmt: skip


def _affordable(d: Draws) -> Question:
    limit, income = d.one("limit", (30, 35, 40), number=True), d.number("income", 20, 90) * 100
    allowed = income * limit // 100
    debt, payment = d.number("debt", 1, 12) * 50, d.number("payment", 4, 40) * 50
    fits = debt + payment <= allowed
    return Question(
        f"A bank lends when all monthly payments together are at most {limit} percent of the monthly income. A "
        f"customer "
        f"earns {income} dollars a month, pays {debt} dollars for another loan, and the new one would take {payment} "
        f"dollars. Does the bank lend? Answer yes or no.",
        "yes" if fits else "no", YES_NO,
        steps=("At most:", f"{income} × {limit} ÷ 100 = {allowed}", "All payments:", *total(debt, payment),
               f"{debt + payment} is {'not more' if fits else 'more'} than {allowed}."),
        level=3,
    )  # fmt: skip


def _present_value(d: Draws) -> Question:
    rate = d.one("rate", (10, 20, 25), number=True)
    growth = Fraction(100 + rate, 100)
    one, two = d.number("one", 2, 40) * 100, d.number("two", 2, 40) * 100
    cost = d.number("cost", 2, 70) * 100
    first, second = one * growth, two * growth * growth
    value = one + two - cost
    squared = growth * growth
    return Question(
        f"An investment costs {cost} dollars now and pays {shown(first)} dollars after one year and {shown(second)} "
        f"dollars after two. At a discount rate of {rate} percent a year, what is its net present value in dollars?",
        Fraction(value),
        steps=(f"The first payment is worth now: {shown(first)} ÷ {shown(growth)} = {one}",
               f"For two years: {shown(growth)} × {shown(growth)} = {shown(squared)}",
               f"The second payment is worth now: {shown(second)} ÷ {shown(squared)} = {two}",
               *total(one, two), "Without the cost:", *difference(one + two, cost)),
        level=5,
    )  # fmt: skip


def _portfolio(d: Draws) -> Question:
    a, b = d.number("a", 2, 60) * 100, d.number("b", 2, 60) * 100
    up, down = d.number("up", 2, 15), d.number("down", 1, 12)
    gain, loss = a * up // 100, b * down // 100
    return Question(
        f"A fund holds shares worth {a} dollars that rise by {up} percent, and bonds worth {b} dollars that fall by "
        f"{down} percent. By how many dollars does its value change? A fall is negative.",
        Fraction(gain - loss),
        steps=("The shares:", f"{a} × {up} ÷ 100 = {gain}", "The bonds:", f"{b} × {down} ÷ 100 = {loss}", "Together:",
               *difference(gain, loss)),
        level=3,
    )  # fmt: skip


def _invoice(d: Draws) -> Question:
    firm, number = d.thing("firm", _FIRMS), d.number("number", 1000, 9999)
    net, percent = d.number("net", 4, 90) * 25, d.one("tax", (4, 8, 20), number=True)
    tax = net * percent // 100
    found = {"invoice": f"R-{number}", "seller": firm, "net": net, "tax": tax, "gross": net + tax}
    return Question(
        f"Invoice R-{number} of {firm}: goods for {net} dollars net, {percent} percent tax to be added. Write it as "
        f"one "
        f'JSON object with the keys "invoice", "seller", "net", "tax" and "gross", amounts in dollars as numbers.',
        json.dumps(found), kind="json",
        steps=("Tax:", f"{net} × {percent} ÷ 100 = {tax}", "Gross:", *total(net, tax)),
        level=3,
    )  # fmt: skip


MIX = TEMPLATES = (
    Template("finance.simple_interest", _simple_interest),
    Template("finance.compound_interest", _compound_interest),
    Template("finance.margin", _margin),
    Template("finance.exchange", _exchange),
    Template("finance.depreciation", _depreciation),
    Template("finance.break_even", _break_even),
    Template("finance.affordable", _affordable),
    Template("finance.present_value", _present_value),
    Template("finance.portfolio", _portfolio),
    Template("finance.invoice", _invoice),
)

question = drawing(MIX)
