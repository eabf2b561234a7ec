"""Figures of a text that need no reference: repetition, diversity, cohesion; by words, in Chinese by characters.

None of them says whether a text is good. They say whether it goes round in circles, how varied its words are, and how
much one sentence takes up from the last.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+(?:['’][^\W\u3400-\u9fff]+)?")
_SENTENCE_END = re.compile(r"(?<=[.!?。!?…])\s*|\n+")
REPEATED_NGRAM = 4


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation; each Chinese character is one."""
    return [word.lower() for word in _WORD.findall(text)]


def sentences(text: str) -> list[str]:
    """Sentences, ended by a mark of either language or a line's end."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part and _WORD.search(part)]


def repetition(units: Sequence[str], n: int = REPEATED_NGRAM) -> float:
    """Share of the n-grams that stood in the text before; 0 for a text shorter than n."""
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(units: Sequence[str], n: int) -> float:
    """Different n-grams ÷ all n-grams (Li et al., 2016); 0 for a text shorter than n. Falls with length by nature."""
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def cohesion(text: str) -> float | None:
    """Mean cosine of the word counts of neighbouring sentences (lexical cohesion); None with fewer than two.

    Words of up to three letters are left out: they join any sentence to any other. A text that repeats itself is
    cohesive to the full, so read it beside `repetition`.
    """
    counts = [
        Counter(word for word in words(sentence) if len(word) > 3 or word >= "\u3400") for sentence in sentences(text)
    ]
    if len(counts) < 2:
        return None
    return sum(_cosine(a, b) for a, b in itertools.pairwise(counts)) / (len(counts) - 1)


def common_share(a: Sequence[str], b: Sequence[str]) -> float:
    """F1 of the longest common subsequence (ROUGE-L, Lin 2004); 1 for two empty texts."""
    if not a or not b:
        return float(not a and not b)
    lengths = [0] * (len(b) + 1)
    for left in a:
        diagonal = 0
        for j, right in enumerate(b, 1):
            above = lengths[j]
            lengths[j] = diagonal + 1 if left == right else max(above, lengths[j - 1])
            diagonal = above
    return 2 * lengths[-1] / (len(a) + len(b))


def _cosine(a: Counter[str], b: Counter[str]) -> float:
    size = math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
    return sum(count * b[word] for word, count in a.items()) / size if size else 0.0
