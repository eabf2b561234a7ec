"""How many tokens the steps of an engine held: the histogram behind `vllm:iteration_tokens_total`."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Any, Final

EDGES: Final = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Upper edges in tokens, as vLLM has them."""


class StepSizes:
    """Counts steps by their tokens. Written by the step thread, read by any."""

    def __init__(self) -> None:
        self.num_steps = 0
        self._num_tokens = 0
        self._counts = [0] * (len(EDGES) + 1)

    def count(self, num_tokens: int) -> None:
        """A step of `num_tokens` tokens was made."""
        self.num_steps += 1
        self._num_tokens += num_tokens
        self._counts[bisect_left(EDGES, num_tokens)] += 1

    def histogram(self) -> dict[str, Any]:
        """`buckets`: (edge, steps up to it), the last edge infinite; `sum`: tokens in all."""
        edges = (*map(float, EDGES), float("inf"))
        return {"buckets": list(zip(edges, accumulate(self._counts), strict=True)), "sum": self._num_tokens}
