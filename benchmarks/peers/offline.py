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


def prompts(streams: int, length: int, seed: int) -> list[list[int]]:
    """`streams` prompts of `length` token ids between 1,000 and 2,000."""
    return [[1000 + (7 * i + 131 * s + 977 * seed + 3) % 1000 for i in range(length)] for s in range(streams)]


def serve(load: Callable[[], Callable[[list[list[int]], int], Sequence[int]]]) -> None:
    """Answer until stdin ends. `load` gives what generates: prompts and tokens to write → tokens written by each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints goes elsewhere
    generate = load()
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
