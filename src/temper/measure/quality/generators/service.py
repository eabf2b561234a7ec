"""Customer service: which queue, what the policy says, how much is paid back, and what a message contains."""

from __future__ import annotations

import json
from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing, shown
from temper.measure.quality.generators.working import difference, product, quotient, total

_ITEMS = ("kettle", "lamp", "headset", "backpack", "keyboard", "rain jacket", "desk chair", "coffee grinder")
_NAMES = ("Ms Alvarez", "Mr Brandt", "Ms Chen", "Mr Diallo", "Ms Evans", "Mr Fontaine", "Ms Gupta", "Mr Haas")
YES_NO = ("yes", "no")
QUEUES = ("billing", "delivery", "technical", "account")
TIERS = ("first line", "second line", "manager")

_MESSAGES: tuple[tuple[str, str, str], ...] = (
    ("billing", "I was charged twice for the {item} I ordered on the {day}th.", "a charge"),
    ("billing", "The invoice for my {item} of the {day}th shows the wrong amount.", "an invoice"),
    ("billing", "My refund for the {item}, promised on the {day}th, is not on my card.", "a refund"),
    ("delivery", "The {item} should have come on the {day}th, and the tracking has not moved since.", "a parcel"),
    ("delivery", "The parcel with my {item} was left at another address on the {day}th.", "a parcel"),
    ("delivery", "Can the {item} be brought on the {day}th instead, as I am away before that?", "a date of delivery"),
    ("technical", "The {item} I got on the {day}th does not switch on, whatever I try.", "a thing that does not work"),
    ("technical", "Since the {day}th my {item} stops after two minutes and blinks.", "a thing that does not work"),
    ("technical", "Which cable fits the {item} that I bought on the {day}th?", "how a thing is used"),
    ("account", "I cannot log in since the {day}th to see the order of my {item}.", "logging in"),
    ("account", "Please change the e-mail address of my account; the {item} of the {day}th went to the old one.",
     "data of the account"),
    ("account", "Please delete my account; the {item} that came on the {day}th was my last order.",
     "data of the account"),
)  # fmt: skip


def _queue(d: Draws) -> Question:
    queue, told, about = d.one("message", _MESSAGES)
    said = told.format(item=d.thing("item", _ITEMS), day=d.number("day", 4, 20))
    return Question(
        f"A customer writes: '{said}' Billing deals with charges, invoices and refunds; delivery with parcels and "
        f"dates "
        f"of delivery; technical with things that do not work and how they are used; account with logging in and "
        f"personal "
        f"data. Which queue takes the message? Answer billing, delivery, technical or account.",
        queue, QUEUES, steps=(f"The message is about {about}.", f"That is the work of {queue}."), level=1,
    )  # fmt: skip


def _return_policy(d: Draws) -> Question:
    item, days, limit = d.thing("item", _ITEMS), d.number("days", 1, 60), d.one("limit", (14, 30), number=True)
    used, sale = d.coin("used"), d.coin("sale")
    fits = days <= limit and not used and not sale
    steps = [f"{days} days are {'not more' if days <= limit else 'more'} than {limit}."]
    if days <= limit:
        steps.append(f"The {item} was {'used' if used else 'not used'}.")
        if not used:
            steps.append(f"It was {'' if sale else 'not '}bought on sale.")
    return Question(
        f"The policy: things may be returned within {limit} days if they are unused and were not bought on sale. A "
        f"customer bought a {item} {days} days ago, {'on sale' if sale else 'at the full price'}, and has "
        f"{'used it' if used else 'not used it'}. May it be returned? Answer yes or no.",
        "yes" if fits else "no", YES_NO,
        steps=(*steps, "Every condition holds." if fits else "So a condition does not hold."), level=2,
    )  # fmt: skip


def _refund(d: Draws) -> Question:
    item, price, shipping = d.thing("item", _ITEMS), d.number("price", 2, 30) * 10, d.number("shipping", 3, 15)
    fee = d.one("fee", (10, 15, 20), number=True)
    kept = Fraction(price * fee, 100)
    return Question(
        f"A customer paid {price + shipping} dollars for a {item}, {shipping} of them for shipping. Shipping is not "
        f"paid "
        f"back, and {fee} percent of the price is kept for restocking. How many dollars are paid back?",
        price - kept,
        steps=("The price alone:", *difference(price + shipping, shipping), "Kept:",
               f"{price} × {fee} ÷ 100 = {shown(kept)}", f"{price} - {shown(kept)} = {shown(price - kept)}"),
        level=3,
    )  # fmt: skip


def _outage(d: Draws) -> Question:
    monthly, days = d.number("daily", 1, 6) * 30, d.number("days", 2, 12)
    goodwill = d.one("goodwill", (5, 10, 20), number=True)
    daily = monthly // 30
    return Question(
        f"A subscription costs {monthly} dollars for 30 days. It was out of service for {days} days. Customers get the "
        f"price of these days back, and {goodwill} dollars on top. How many dollars is that?",
        Fraction(daily * days + goodwill),
        steps=("A day costs:", *quotient(monthly, 30), f"{days} days:", *product(daily, days), "With the extra:",
               *total(daily * days, goodwill)),
        level=3,
    )  # fmt: skip


def _waiting(d: Draws) -> Question:
    agents, rounds, minutes = d.number("agents", 2, 9), d.number("rounds", 2, 12), d.number("minutes", 3, 12)
    ahead = agents * rounds
    return Question(
        f"{ahead} callers are waiting before Ms Ono. {agents} agents take calls of {minutes} minutes each and begin "
        f"with "
        f"the next ones now. After how many minutes is it her turn?",
        Fraction(rounds * minutes),
        steps=(f"Rounds of {agents} callers before her:", *quotient(ahead, agents), "Each round takes its minutes:",
               *product(rounds, minutes)),
        level=2,
    )  # fmt: skip


def _deadline(d: Draws) -> Question:
    hours = d.one("hours", (2, 4, 8), number=True)
    opened, took = d.number("opened", 8 * 60, 13 * 60), d.number("took", 30, 600)
    allowed = hours * 60
    late = took > allowed
    return Question(
        f"A ticket must be answered within {hours} hours. It was opened at {_clock(opened)} and answered at "
        f"{_clock(opened + took)} on the same day. Was the answer late? Answer yes or no.",
        "yes" if late else "no", YES_NO,
        steps=(f"Opened after {opened // 60} × 60 + {opened % 60} = {opened} minutes of the day.",
               f"Answered after {(opened + took) // 60} × 60 + {(opened + took) % 60} = {opened + took} minutes.",
               f"It took {opened + took} - {opened} = {took} minutes.", f"Allowed are {hours} × 60 = {allowed}.",
               f"{took} is {'more' if late else 'not more'} than {allowed}."),
        level=4,
    )  # fmt: skip


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _escalation(d: Draws) -> Question:
    contacts, amount, legal = d.number("contacts", 1, 5), d.number("amount", 1, 60) * 10, d.coin("legal")
    manager = legal or amount > 400
    second = contacts >= 3 or amount > 100
    steps = [f"A lawyer is {'' if legal else 'not '}mentioned, and {amount} dollars are "
             f"{'more' if amount > 400 else 'not more'} than 400."]  # fmt: skip
    if not manager:
        steps.append(f"{contacts} contacts are {'' if contacts >= 3 else 'not '}3 or more, and {amount} dollars are "
                     f"{'more' if amount > 100 else 'not more'} than 100.")  # fmt: skip
    tier = TIERS[2] if manager else TIERS[1] if second else TIERS[0]
    return Question(
        f"A case goes to a manager if a lawyer is mentioned or more than 400 dollars are at stake; else to the "
        f"second line "
        f"if the customer has written 3 times or more or more than 100 dollars are at stake; else to the first line. A "
        f"customer has written {contacts} times, {amount} dollars are at stake, and a lawyer is "
        f"{'mentioned' if legal else 'not mentioned'}. Who takes it? Answer first line, second line or manager.",
        tier, TIERS, steps=(*steps, f"So it goes to the {tier}."), level=3,
    )  # fmt: skip


def _extract(d: Draws) -> Question:
    name, item, order = d.thing("name", _NAMES), d.thing("item", _ITEMS), d.number("order", 10000, 99999)
    count, issue = d.number("count", 1, 6), d.one("issue", ("damaged", "missing", "late", "wrong colour"))
    said = {
        "damaged": f"all {count} arrived damaged" if count > 1 else "it arrived damaged",
        "missing": f"{count} of them were missing from the box" if count > 1 else "it was missing from the box",
        "late": "the parcel came far too late",
        "wrong colour": "the colour is not the one I chose",
    }[issue]
    found = {"order": order, "item": item, "quantity": count, "issue": issue}
    return Question(
        f"A customer writes: 'Good morning, {name} here. My order {order} was {count} × {item}, and {said}.' Write "
        f"it as "
        f'one JSON object with the keys "order" (a number), "item", "quantity" (a number) and "issue" (damaged, '
        f'missing, '
        f"late or wrong colour).",
        json.dumps(found), kind="json",
        steps=(f"The order is {order}.", f"It was {count} of the item '{item}'.", f"The issue is: {issue}."), level=2,
    )  # fmt: skip


MIX = TEMPLATES = (
    Template("service.queue", _queue),
    Template("service.return_policy", _return_policy),
    Template("service.refund", _refund),
    Template("service.outage", _outage),
    Template("service.waiting", _waiting),
    Template("service.deadline", _deadline),
    Template("service.escalation", _escalation),
    Template("service.extract", _extract),
)

question = drawing(MIX)
