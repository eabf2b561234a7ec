"""Other words and small mistakes: what may change in a text without changing what it asks.

Code, quotations, what is asked to be answered with, and whatever the caller protects stay to the letter. All randomness
comes from the argument.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from temper.errors import Invalid, NotFound
from temper.measure.quality.generated import FORM, FORM_ZH

ENGLISH: Final[tuple[tuple[str, ...], ...]] = (
    ("buy", "purchase"), ("buys", "purchases"), ("bought", "purchased"), ("gets", "receives"), ("shop", "store"),
    ("children", "kids"), ("begin", "start"), ("begins", "starts"), ("further", "farther"),
    ("big", "large"), ("quick", "fast"), ("quickly", "rapidly"), ("help", "assist"),
    ("show", "display"), ("enough", "sufficient"), ("maybe", "perhaps"),
    ("however", "nevertheless"), ("customer", "client"),
    ("goods", "merchandise"), ("equally", "evenly"), ("damaged", "broken"), ("lowered", "reduced"),
    ("cannot", "is unable to"), ("many people", "a lot of people"), ("for example", "for instance"),
    ("important", "essential"), ("difficult", "hard"), ("easy", "simple"), ("often", "frequently"),
)  # fmt: skip
"""Each row means the same in the sentences of questions."""

CHINESE: Final[tuple[tuple[str, ...], ...]] = (
    ("不会", "无法"), ("可能", "或许", "也许"), ("如果", "假如", "要是"), ("因为", "由于"), ("所以", "因此"),
    ("但是", "可是"), ("一共", "总共", "共计"), ("现在", "目前"), ("其余", "其他"), ("马上", "立刻"),
    ("非常", "十分"), ("经常", "常常"), ("需要", "须要"), ("应该", "应当"), ("帮助", "协助"), ("开始", "着手"),
    ("商店", "店铺"), ("收到", "接到"), ("原价", "原来的价格"), ("降价", "减价"),
    ("立即", "即刻"), ("购买", "采购"), ("同时", "与此同时"), ("大约", "大概"),
)  # fmt: skip

_NEIGHBOURS: Final = {
    "a": "qsz", "b": "vgn", "c": "xdv", "d": "sfe", "e": "wrd", "f": "dgr", "g": "fht", "h": "gjy", "i": "uok",
    "j": "hku", "k": "jli", "l": "kop", "m": "nj", "n": "bmh", "o": "ipl", "p": "ol", "q": "wa", "r": "etf",
    "s": "adw", "t": "ryg", "u": "yij", "v": "cbf", "w": "qes", "x": "zcs", "y": "tuh", "z": "xa",
}  # fmt: skip
"""Beside each other on a QWERTY keyboard."""
_HOMOPHONES: Final = {
    "的": "地得", "地": "的", "得": "的", "在": "再", "再": "在", "做": "作", "作": "做", "他": "她", "她": "他",
    "那": "哪", "哪": "那", "已": "以", "以": "已", "带": "代", "象": "像", "像": "象", "坐": "座", "座": "坐",
}  # fmt: skip
"""What slips in typing Chinese by sound."""
_PROTECTED: Final = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w)"
    rf"|{re.escape(FORM.strip())}|{re.escape(FORM_ZH.strip())}"
    r"|Answer (?:yes or no|with|red|first|billing)[^.]*\.",
    re.DOTALL,
)
_LETTERS: Final = re.compile(r"(?<![\w'’])[a-z]{4,}(?![\w'’])")
MIN_WORDS: Final = 1

Table = Sequence[Sequence[str]]


def synonyms(text: str, rng: random.Random, rate: float, table: Table, protected: Iterable[str] = ()) -> str:
    """`text` with about `rate` of the words that the table knows put in other words; at least one, where it can."""
    others = {word: [other for other in row if other != word] for row in table for word in row}
    pattern = re.compile("|".join(_bounded(word) for word in sorted(others, key=len, reverse=True)), re.IGNORECASE)

    def other(match: re.Match[str]) -> str:
        return _cased(match[0], rng.choice(others[match[0].lower()]))

    return _changed(text, pattern, other, rng, rate, protected)


def typos(text: str, rng: random.Random, rate: float, protected: Iterable[str] = ()) -> str:
    """`text` with a slip in about `rate` of its longer words (Chinese: characters that sound alike); at least one.

    Words of small letters alone, so that no name, number or code is touched.
    """
    pattern = re.compile(rf"{_LETTERS.pattern}|[{''.join(_HOMOPHONES)}]")
    return _changed(text, pattern, lambda match: _slip(match[0], rng), rng, rate, protected)


def read_table(path: Path) -> Table:
    """Rows of words that mean the same, separated by tabs or `/`, one row a line; `#` begins a comment.

    Raises:
        NotFound: there is no such file.
        Invalid: a row has fewer than two words, or a word stands in two rows.
    """
    if not path.is_file():
        raise NotFound(f"there is no table of synonyms '{path}'", param="synonyms")
    rows, seen = list[list[str]](), dict[str, int]()
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise Invalid(f"{path.name} must be UTF-8: byte {error.start} is not", param="synonyms") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        row = [word.strip().lower() for word in re.split(r"[\t/]", line) if word.strip()]
        if len(row) < 2:
            raise Invalid(f"{path.name}:{number}: a row has two words or more, but this one is '{line.strip()}'",
                          param="synonyms", hint="separate them by a tab or /")  # fmt: skip
        for word in row:
            if word in seen:
                raise Invalid(
                    f"{path.name}:{number}: a word stands in one row, but '{word}' in line {seen[word]} as well",
                    param="synonyms",
                )
            seen[word] = number
        rows.append(row)
    if not rows:
        raise Invalid(f"a table of synonyms has one row or more, but {path.name} has none", param="synonyms")
    return rows


def _changed(
    text: str, pattern: re.Pattern[str], change: Callable[[re.Match[str]], str], rng: random.Random, rate: float,
    protected: Iterable[str],
) -> str:  # fmt: skip
    closed = [match.span() for match in _PROTECTED.finditer(text)]
    words = {word.lower() for name in protected for word in [name, *name.split()]}
    places = [
        match
        for match in pattern.finditer(text)
        if match[0].lower() not in words
        and not any(match.start() < end and start < match.end() for start, end in closed)
    ]
    if not places:
        return text
    wanted = max(MIN_WORDS, round(rate * len(places)))
    chosen = sorted(rng.sample(range(len(places)), min(wanted, len(places))))
    parts, at = [], 0
    for number in chosen:
        match = places[number]
        parts += [text[at : match.start()], change(match)]
        at = match.end()
    return "".join(parts) + text[at:]


def _slip(word: str, rng: random.Random) -> str:
    if word in _HOMOPHONES:
        return rng.choice(_HOMOPHONES[word])
    at = rng.randrange(1, len(word) - 1)
    kind = rng.choice(("swap", "drop", "double", "neighbour"))
    if kind == "swap" and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[: at + 1] + word[at:]
    return word[:at] + rng.choice(_NEIGHBOURS[word[at]]) + word[at + 1 :]


def _bounded(word: str) -> str:
    """A word where it stands for itself: in Chinese not in 不可能, 会不会, 可能性."""
    return rf"(?<!\w){re.escape(word)}(?!\w)" if word.isascii() else rf"(?<![不会没]){re.escape(word)}(?!性)"


def _cased(model: str, word: str) -> str:
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


def numbers_of(text: str) -> Mapping[str, int]:
    """Every number in a text, as written, and how often."""
    found: dict[str, int] = {}
    for number in re.findall(r"\d+(?:[.,]\d+)*", text):
        found[number] = found.get(number, 0) + 1
    return found
