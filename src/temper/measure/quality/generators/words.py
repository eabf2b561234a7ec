"""Word problems of one to five steps, in English and in Chinese: the same stories, numbers drawn afresh."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from temper.measure.quality.generators.question import Draws, Question, Template, drawing, shown
from temper.measure.quality.generators.working import difference, product, quotient, total

_NAMES = {
    "en": ("Mia", "Omar", "Lena", "Ravi", "Chloe", "Tom", "Aiko", "Sara"),
    "zh": ("小明", "小红", "丽娜", "阿强", "小芳", "大伟", "小雨", "莎莎"),
}
_THINGS = {
    "en": ("apples", "pencils", "stickers", "marbles", "books", "shells"),
    "zh": ("苹果", "铅笔", "贴纸", "弹珠", "本子", "贝壳"),
}
_Said = tuple[str, str]
"""English, Chinese."""


def _told(language: str, story: _Said, answer: int | Fraction, level: int, *steps: _Said | list[str]) -> Question:
    """A story with its working: sentences in both languages, sums in none."""
    at = 0 if language == "en" else 1
    lines = [line for step in steps for line in (step if isinstance(step, list) else [step[at]])]
    return Question(story[at], Fraction(answer), steps=tuple(lines), level=level)


def _give_and_get(d: Draws, language: str) -> Question:
    name, other = d.things("people", _NAMES[language], 2)
    thing = d.thing("thing", _THINGS[language])
    have, get = d.number("have", 10, 60), d.number("get", 3, 30)
    give = d.number("give", 2, have - 1)
    return _told(
        language,
        (
            f"{name} has {have} {thing}. {name} gives {give} of them to {other} and then buys {get} more. "
            f"How many {thing} does {name} have now?",
            f"{name}有{have}个{thing},送给{other}{give}个,又买了{get}个。{name}现在有多少个{thing}?",
        ),
        have - give + get,
        2,
        (f"First {name} gives {give} away.", f"先送出{give}个。"),
        difference(have, give),
        (f"Then {name} buys {get} more.", f"再买{get}个。"),
        total(have - give, get),
    )


def _boxes(d: Draws, language: str) -> Question:
    thing = d.thing("thing", _THINGS[language])
    boxes, each = d.number("boxes", 3, 15), d.number("each", 4, 24)
    broken = d.number("broken", 1, boxes * each // 2)
    return _told(
        language,
        (
            f"A shop receives {boxes} boxes with {each} {thing} in each. {broken} of the {thing} are damaged. "
            f"How many are not damaged?",
            f"商店收到{boxes}箱{thing},每箱{each}个,其中{broken}个坏了。没有坏的有多少个?",
        ),
        boxes * each - broken,
        3,
        (f"All {thing} together:", f"{thing}一共:"),
        product(boxes, each),
        ("Without the damaged ones:", "减去坏的:"),
        difference(boxes * each, broken),
    )


def _share(d: Draws, language: str) -> Question:
    thing = d.thing("thing", _THINGS[language])
    people, each, left = d.number("people", 3, 9), d.number("each", 3, 20), d.number("left", 1, 9)
    whole = people * each + left
    return _told(
        language,
        (
            f"There are {whole} {thing}. {left} are kept back and the rest are shared equally among {people} children. "
            f"How many does each child get?",
            f"有{whole}个{thing},留下{left}个,其余平均分给{people}个孩子。每个孩子分到多少个?",
        ),
        each,
        3,
        ("To be shared:", "要分的:"),
        difference(whole, left),
        (f"Among {people} children:", f"分给{people}个孩子:"),
        quotient(whole - left, people),
    )


def _money(d: Draws, language: str) -> Question:
    name = d.thing("name", _NAMES[language])
    num, price = d.number("num", 2, 9), d.number("price", 2, 15)
    paid = num * price + d.number("back", 1, 40)
    return _told(
        language,
        (
            f"{name} buys {num} tickets at {price} dollars each and pays with {paid} dollars. "
            f"How many dollars does {name} get back?",
            f"{name}买了{num}张票,每张{price}元,付了{paid}元。应找回多少元?",
        ),
        paid - num * price,
        2,
        ("The tickets cost:", "票价一共:"),
        product(num, price),
        ("The change:", "找回:"),
        difference(paid, num * price),
    )


def _travel(d: Draws, language: str) -> Question:
    speed, hours = d.number("tens", 3, 9) * 10, d.number("hours", 2, 6)
    more = d.number("more", 5, 60)
    return _told(
        language,
        (
            f"A train runs for {hours} hours at {speed} km per hour and then {more} km further. "
            f"How many km does it run in all?",
            f"火车以每小时{speed}千米的速度行驶{hours}小时,又行驶了{more}千米。一共行驶了多少千米?",
        ),
        speed * hours + more,
        2,
        (f"In {hours} hours:", f"{hours}小时行驶:"),
        product(speed, hours),
        ("In all:", "一共:"),
        total(speed * hours, more),
    )


def _discount(d: Draws, language: str) -> Question:
    price, percent = d.number("twenties", 2, 30) * 20, d.one("percent", (5, 10, 20, 25, 50), number=True)
    off = Fraction(price * percent, 100)
    return _told(
        language,
        (
            f"A coat costs {price} dollars. Today its price is lowered by {percent} percent. "
            f"How many dollars does it cost today?",
            f"一件外套原价{price}元,今天降价{percent}%。今天卖多少元?",
        ),
        price - off,
        3,
        (f"{percent} percent of the price:", f"价格的{percent}%:"),
        [f"{price} × {percent} ÷ 100 = {shown(off)}"],
        ("The price today:", "今天的价格:"),
        difference(price, int(off)) if off.denominator == 1 else [f"{price} - {shown(off)} = {shown(price - off)}"],
    )


def _bakery(d: Draws, language: str) -> Question:
    trays, each, price = d.number("trays", 3, 12), d.number("each", 6, 24), d.number("price", 2, 5)
    left = d.number("left", 1, trays * each // 3)
    costs = d.number("costs", 5, 30)
    sold = trays * each - left
    return _told(
        language,
        (
            f"A baker makes {trays} trays of {each} rolls and sells all but {left} of them at {price} dollars each. "
            f"Flour and power cost {costs} dollars. How many dollars are left as profit?",
            f"面包师做了{trays}盘面包,每盘{each}个,除了{left}个以外都卖掉了,每个{price}元。"
            f"面粉和电费共{costs}元。利润是多少元?",
        ),
        sold * price - costs,
        4,
        ("Rolls made:", "做了:"),
        product(trays, each),
        ("Rolls sold:", "卖掉:"),
        difference(trays * each, left),
        ("Money taken:", "收入:"),
        product(sold, price),
        ("Without the costs:", "减去成本:"),
        difference(sold * price, costs),
    )


def _ages(d: Draws, language: str) -> Question:
    name, other = d.things("people", _NAMES[language], 2)
    young, times, years = d.number("young", 3, 12), d.number("times", 2, 5), d.number("years", 2, 15)
    return _told(
        language,
        (
            f"{name} is {young} years old, and {other} is {times} times as old. "
            f"How old will the two be together in {years} years?",
            f"{name}今年{young}岁,{other}的年龄是{name}的{times}倍。{years}年后两人一共多少岁?",
        ),
        young * (times + 1) + 2 * years,
        4,
        (f"{other} is now:", f"{other}今年:"),
        product(young, times),
        ("Together now:", "今年一共:"),
        total(young, young * times),
        (f"Each of the two will be {years} years older:", f"两人各长{years}岁:"),
        product(2, years),
        ("Together then:", "到时一共:"),
        total(young * (times + 1), 2 * years),
    )


def _meeting(d: Draws, language: str) -> Question:
    one, two, hours = d.number("one_tens", 4, 9) * 10, d.number("two_tens", 4, 12) * 10, d.number("hours", 2, 7)
    apart = (one + two) * hours
    return _told(
        language,
        (
            f"Two trains start towards each other from towns {apart} km apart, one at {one} km per hour and the other "
            f"at {two} km per hour. How many km has the first one run when they meet?",
            f"两列火车从相距{apart}千米的两地同时相向开出,一列每小时{one}千米,另一列每小时{two}千米。"
            f"相遇时第一列行驶了多少千米?",
        ),
        one * hours,
        5,
        ("Each hour they come closer by:", "每小时靠近:"),
        total(one, two),
        ("They meet after so many hours:", "相遇需要的小时数:"),
        quotient(apart, one + two),
        ("The first one runs:", "第一列行驶:"),
        product(one, hours),
    )


def _average(d: Draws, language: str) -> Question:
    name = d.thing("name", _NAMES[language])
    mean, count = d.number("mean", 60, 90), 4
    marks = [mean + d.number(f"off_{at}", -9, 9) for at in range(count - 1)]
    last = mean * count - sum(marks)
    return _told(
        language,
        (
            f"In three tests {name} got {marks[0]}, {marks[1]} and {marks[2]} points. How many points must {name} get "
            f"in the fourth test for an average of {mean}?",
            f"{name}三次测验得了{marks[0]}、{marks[1]}和{marks[2]}分。要使四次平均分是{mean}分,第四次应得多少分?",
        ),
        last,
        5,
        ("Four tests at that average:", "四次总分应是:"),
        product(mean, count),
        ("So far:", "前三次:"),
        total(marks[0], marks[1]),
        total(marks[0] + marks[1], marks[2]),
        ("Missing:", "还差:"),
        difference(mean * count, sum(marks)),
    )


_Story = Callable[[Draws, str], Question]
_STORIES: tuple[_Story, ...] = (_give_and_get, _boxes, _share, _money, _travel, _discount)
_HARDER: tuple[_Story, ...] = (_bakery, _ages, _meeting, _average)


def _template(story: _Story, task: str, language: str, extra: bool) -> Template:
    return Template(f"{task}.{story.__name__.strip('_')}", lambda d: story(d, language), extra)


TEMPLATES = tuple(_template(story, "words", "en", story in _HARDER) for story in (*_STORIES, *_HARDER))
TEMPLATES_ZH = tuple(_template(story, "words_zh", "zh", story in _HARDER) for story in (*_STORIES, *_HARDER))

english = drawing(TEMPLATES[: len(_STORIES)])
chinese = drawing(TEMPLATES_ZH[: len(_STORIES)])
