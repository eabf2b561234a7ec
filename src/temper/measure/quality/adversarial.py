"""Questions made harder without changing their answers: letters mixed up, or a sentence that has nothing to do with it.

Only the first paragraph of a prompt is touched: it holds the question, and what follows says how to answer. Compare
GSM-IC (arXiv 2302.00093) for distractors. Knows nothing of models.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from temper.asking import Answer
from temper.measure.quality.suite import Item, Metric, Suite, draw

KINDS: Final = ("typos", "distractor")
SUFFIX: Final = "_adversarial"
"""Of the names of suites that ask so."""
TYPO_SHARE: Final = 0.2
"""Share of the words that may be mistyped; one at least is."""

_WORD = re.compile(r"[A-Za-z]{4,}")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_DISTRACTORS: Final = (
    "Yesterday it rained for {} minutes.",
    "The library across the street opened {} years ago.",
    "A bus with {} seats stops at the corner.",
    "My neighbour's dog is {} months old.",
    "The film on television takes {} minutes.",
    "There are {} steps up to the tower.",
)
_DISTRACTORS_ZH: Final = (
    "昨天下了{}分钟的雨。",
    "对面的图书馆开了{}年。",
    "街角的公共汽车有{}个座位。",
    "邻居的狗有{}个月大。",
)


def harder(text: str, kind: str, rng: random.Random) -> str:
    """`text` with its first paragraph mistyped or distracted from."""
    question, gap, rest = text.partition("\n\n")
    made = _mistyped(question, rng) if kind == "typos" else _distracted(question, rng)
    return made + gap + rest


def _mistyped(text: str, rng: random.Random) -> str:
    """Digits, signs and names stay as they are; where there are none but capital words, those are taken."""
    words = list(_WORD.finditer(text))
    words = [word for word in words if word[0].islower()] or words
    if not words:
        return text
    count = max(1, round(TYPO_SHARE * len(words)))
    for word in sorted(rng.sample(words, count), key=lambda found: -found.start()):
        text = text[: word.start()] + _typo(word[0], rng) + text[word.end() :]
    return text


def _typo(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    found = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],  # two change places
        word[:at] + word[at + 1 :],  # one is missing
        word[:at] + word[at] * 2 + word[at + 1 :],  # one is double
    )
    return rng.choice([made for made in found if made != word])


def _distracted(text: str, rng: random.Random) -> str:
    if _CHINESE.search(text):
        return rng.choice(_DISTRACTORS_ZH).format(rng.randint(3, 90)) + text
    return f"{rng.choice(_DISTRACTORS).format(rng.randint(3, 90))} {text}"


class AdversarialSuite:
    """The items of another suite, each mistyped or distracted from; scored as the other suite scores them."""

    def __init__(self, inner: Suite, kinds: Sequence[str] = KINDS) -> None:
        self.name = inner.name + SUFFIX
        self.metrics: tuple[Metric, ...] = inner.metrics
        self._inner, self._kinds = inner, tuple(kinds)

    def items(self, seed: int, count: int) -> Sequence[Item]:
        """The same questions that the other suite asks at this seed."""
        return [self._item(seed, at, item) for at, item in enumerate(self._inner.items(seed, count))]

    def score(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """See `Suite.score`."""
        return self._inner.score(item, answer)

    def _item(self, seed: int, index: int, item: Item) -> Item:
        rng = draw(seed, self.name, index)
        *before, last = item.request.messages or ()
        asked = replace(last, content=harder(last.content or "", rng.choice(self._kinds), rng))
        return replace(item, request=replace(item.request, messages=(*before, asked)))
