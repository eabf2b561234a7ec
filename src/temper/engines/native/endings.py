"""Good endings and endless loops: where a sentence is complete, and when a text only repeats itself.

Pure classes over text and tokens; what follows from their findings is decided in `output.py`.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_TAIL_CHARS = 24
_SENTENCE = re.compile(
    r"""(?: [。！？]                      # Chinese ends are never anything else
          | [!?] | …
          | (?<! \d)(?<! \b[A-Za-z])(?<! \b(?:Dr|Mr|Ms|St|vs|No))(?<! \b(?:Mrs|etc|e\.g|i\.e)) \.   # not 3.14, not e.g.
        ) ["'”’」』）)\]*_]* \s* $""",
    re.VERBOSE,
)


class EndingWatch:
    """Follows a text and knows whether it could well end here."""

    def __init__(self) -> None:
        self._tail = ""
        self._ticks = 0
        self._in_fence = False

    def push(self, text: str) -> None:
        """Take in the next piece of the text."""
        self._tail = (self._tail + text)[-_TAIL_CHARS:]
        if self._ticks or "`" in text:
            for char in text:
                self._ticks = self._ticks + 1 if char == "`" else 0
                if self._ticks == 3:
                    self._in_fence = not self._in_fence

    @property
    def complete(self) -> bool:
        """A sentence or paragraph of English or Chinese ends here, outside any code fence."""
        if self._in_fence or not self._tail.strip():
            return False
        return self._tail.endswith("\n\n") or _SENTENCE.search(self._tail) is not None


class LoopGuard:
    """Notices a passage of at least `ngram` tokens that stands `repeats` times in a row.

    A shorter cycle counts as the passage that whole cycles of it make up. Found through the distance
    to the last occurrence of the newest n-gram: while the text cycles, it stays the same.
    """

    def __init__(self, ngram: int, repeats: int) -> None:
        self._ngram = ngram
        self._repeats = repeats
        self._last: dict[bytes, int] = {}
        self._distance = 0
        self._run = 0

    def push(self, tokens: NDArray[np.int32], end: int) -> bool:
        """`tokens[:end]` is the text so far, one token longer than last time. True when it only repeats."""
        if end < self._ngram:
            return False
        key = tokens[end - self._ngram : end].tobytes()
        before = self._last.get(key)
        self._last[key] = end
        if before is None:
            self._distance = self._run = 0
            return False
        if end - before != self._distance:
            self._distance, self._run = end - before, 0
        self._run += 1
        passage = -(-self._ngram // self._distance) * self._distance
        # `run` n-grams matched in a row at this distance: so many tokens are periodic.
        return self._run + self._ngram - 1 + self._distance >= passage * self._repeats

    def reset(self) -> None:
        """Forget everything: a new part of the text begins."""
        self._last.clear()
        self._distance = self._run = 0
