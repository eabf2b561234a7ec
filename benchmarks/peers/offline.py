"""An engine as prove_in_process.py drives it: asked line by line on stdin, in whatever environment it lives.

    generate STREAMS PROMPT TOKENS SEED   answered by the seconds from the prompts to the last token

Prompts are token ids made up from their numbers, so that every engine gets the same; no two seeds share a beginning.
llama_step.cpp answers the same line with the same prompts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

Generate = Callable[[list[list[int]], int], Sequence[int]]
"""Prompts, and how many tokens to write after each; returns how many were."""


def prompts(streams: int, length: int, seed: int) -> list[list[int]]:
    """`streams` prompts of `length` token ids between 1,000 and 2,000."""
    return [[1000 + (7 * i + 131 * s + 977 * seed + 3) % 1000 for i in range(length)] for s in range(streams)]


def serve(loaded: Callable[[], AbstractContextManager[Generate]]) -> None:
    """Load an engine, answer until stdin ends, and let it go."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints goes elsewhere
    with loaded() as generate:
        for line in sys.stdin:
            streams, length, num_tokens, seed = map(int, line.split()[1:])
            asked = prompts(streams, length, seed)
            start = time.perf_counter()
            written = generate(asked, num_tokens)
            seconds = time.perf_counter() - start
            if list(written) != [num_tokens] * streams:
                raise SystemExit(f"{num_tokens} tokens were asked of each stream, but these came: {list(written)}")
            answers.write(f"{seconds:.6f}\n")
            answers.flush()
