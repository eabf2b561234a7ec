"""Log-probabilities of given tokens: for scores, for an echoed prompt, for chosen tokens.

`RowScores` collects by position, so a prompt that is computed in chunks, or twice after a preemption,
gives the same result. All of it runs on the step thread between two forward passes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from temper.engines.base import Scores
from temper.kernels.executor import Executor, TokenLogprobs
from temper.types import TokenLogprob

Spell = Callable[[int], bytes]
"""The bytes of a token."""


def token_logprob(token_id: int, logprob: float | None, top: tuple[TokenLogprob, ...], spell: Spell) -> TokenLogprob:
    """One token with its text."""
    raw = spell(token_id)
    return TokenLogprob(token_id, raw.decode("utf-8", "replace"), raw, logprob, top)


def unpack(found: TokenLogprobs, row: int, token_id: int, top_k: int, spell: Spell) -> TokenLogprob:
    """Row `row` of what the executor found, as the caller sees it, with `top_k` alternatives."""
    ids, logprobs = found.top_ids[row, :top_k].tolist(), found.top_logprobs[row, :top_k].tolist()
    top = tuple(token_logprob(i, p, (), spell) for i, p in zip(ids, logprobs, strict=True))
    return token_logprob(token_id, float(found.logprobs[row]), top, spell)


class RowScores:
    """Log-probabilities of `tokens` [T]; of every token of the vocabulary when `top_k` is None."""

    def __init__(self, executor: Executor, tokens: NDArray[np.int32], top_k: int | None, spell: Spell) -> None:
        self._executor = executor
        self._tokens = tokens
        self._spell = spell
        num = len(tokens) - 1
        width = executor.vocab_size if top_k is None else top_k
        self._logprobs = np.zeros(num, dtype=np.float32)
        self._top_ids = None if top_k is None else np.zeros((num, width), dtype=np.int32)
        self._top_logprobs = np.zeros((num, width), dtype=np.float32)

    def take(self, positions: range, rows: NDArray[np.int32]) -> None:
        """Collect what follows the tokens at `positions` from logits rows `rows`."""
        start, stop = positions.start, min(positions.stop, len(self._logprobs))
        if stop <= start:
            return
        rows = rows[: stop - start]
        following = np.ascontiguousarray(self._tokens[start + 1 : stop + 1])
        if self._top_ids is None:
            logits = self._executor.logits()[rows]
            logits -= logits.max(axis=1, keepdims=True)
            logits -= np.log(np.exp(logits).sum(axis=1, dtype=np.float64, keepdims=True)).astype(np.float32)
            self._top_logprobs[start:stop] = logits
            self._logprobs[start:stop] = logits[np.arange(stop - start), following]
            return
        found = self._executor.logprobs(rows, following, self._top_logprobs.shape[1])
        self._logprobs[start:stop] = found.logprobs
        self._top_ids[start:stop] = found.top_ids
        self._top_logprobs[start:stop] = found.top_logprobs

    def scores(self) -> Scores:
        """What was collected."""
        return Scores(self._logprobs, self._top_ids, self._top_logprobs)

    def token_logprobs(self) -> tuple[TokenLogprob, ...]:
        """The tokens with what was collected for them; nothing predicts the first one."""
        assert self._top_ids is not None, "an echo names its top_k"
        found = TokenLogprobs(self._logprobs, self._top_ids, self._top_logprobs)
        top_k = self._top_ids.shape[1]
        first = token_logprob(int(self._tokens[0]), None, (), self._spell)
        following = self._tokens[1:].tolist()
        return (first, *(unpack(found, i, token, top_k, self._spell) for i, token in enumerate(following)))
