"""Perplexity of an engine over a text, by llama.cpp's protocol, so that its own tool's figure can stand beside it.

Through `Engine.score` where an engine offers it, else through completions that echo the prompt with its
log-probabilities. It knows no model and no file but the text that comes with Temper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources

from temper.asking import ask, collect
from temper.engines.base import Engine
from temper.errors import EngineFailure, Invalid, Unsupported

WINDOW = 512
PROTOCOL = (
    f"exp of the mean negative log-likelihood over windows of {WINDOW} tokens that do not overlap, the second half of "
    "each scored (llama.cpp's protocol), on prose, code and multilingual text"
)


def corpus() -> str:
    """Prose, code and multilingual text that comes with Temper."""
    return (resources.files("temper.measure.quality") / "corpus.txt").read_text("utf-8")


async def perplexity(engine: Engine, text: str) -> float:
    """Perplexity over `text`; lower is better. Comparable only between engines with the same tokenizer.

    Raises:
        Unsupported: the engine cannot tell log-probabilities of given tokens.
        Invalid: the text is shorter than a window.
    """
    if not engine.capabilities().tokenize:
        raise Unsupported(f"engine '{engine.name}' does not tokenize, so it cannot be scored", param="tokenize")
    tokens = await engine.tokenize(text)
    if len(tokens) < WINDOW:
        raise Invalid(f"perplexity needs at least {WINDOW} tokens, the text has {len(tokens)}", param="text")
    loss, count = 0.0, 0
    for begin in range(0, len(tokens) - WINDOW + 1, WINDOW):
        found = (await logprobs(engine, tokens[begin : begin + WINDOW]))[WINDOW // 2 :]
        loss -= sum(found)
        count += len(found)
    return math.exp(loss / count)


async def logprobs(engine: Engine, tokens: Sequence[int]) -> list[float]:
    """log p(token | those before), for all tokens but the first.

    Raises:
        Unsupported: the engine can neither score nor echo.
    """
    can = engine.capabilities()
    if can.score:
        return [float(value) for value in (await engine.score(tokens, top_k=1)).logprobs]
    if not (can.echo and can.logprobs):
        raise Unsupported(f"engine '{engine.name}' offers neither score nor echo with logprobs", param="score")
    # One token is generated and left out: some servers refuse to generate none.
    answer = await collect(engine.generate(ask(tokens, echo=True, logprobs=0, max_tokens=1, temperature=0.0)))
    values = [entry.logprob for entry in answer.samples[0].logprobs[1 : len(tokens)]]
    if len(values) != len(tokens) - 1 or None in values:
        raise EngineFailure(f"engine '{engine.name}' told {len(values)} log-probabilities for {len(tokens)} tokens")
    return [value for value in values if value is not None]
