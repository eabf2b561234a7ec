"""The suites `perplexity` and `kl`: how well an engine predicts a text, and how far its predictions are from another's.

Over passages of the text that comes with Temper, so that two engines can be compared passage by passage. The whole
vocabulary is compared where both engines tell it; else the k most likely tokens, and the metric is then named so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from temper.asking import ask, collect
from temper.engines.base import Engine
from temper.errors import Unsupported
from temper.measure.quality.perplexity import corpus, logprobs
from temper.measure.quality.suite import Item, Metric

PASSAGE_CHARACTERS = 400
TOP_K = 20
"""Most alternatives that are asked of an engine that does not tell its whole vocabulary."""

NLL = Metric("nll", "mean nats a token; its exponential is the perplexity. Comparable with the same tokenizer only",
             better="lower", worst=None, bounds=None, margin=0.01)  # fmt: skip
BITS = Metric("bits_per_byte", "bits that a byte of the text costs; comparable between tokenizers", better="lower",
              worst=None, bounds=None, margin=0.01)  # fmt: skip
KL = Metric("kl", "mean Kullback–Leibler divergence from the reference, nats a position, over the whole vocabulary",
            better="lower", worst=None, bounds=None, margin=0.01)  # fmt: skip
KL_TOP = Metric("kl_top_k", f"the same over tokens that both have among their {TOP_K} most likely, all others as one: "
                "a lower bound", better="lower", worst=None, bounds=None, margin=0.01)  # fmt: skip
TOP_1 = Metric("top_1", "share of positions with the same most likely token", worst=None, margin=0.01)


def passages() -> list[str]:
    """The text that comes with Temper, cut at spaces into passages of about 400 characters."""
    text, found = corpus(), []
    while text:
        cut = len(text) if len(text) < 1.5 * PASSAGE_CHARACTERS else text.find(" ", PASSAGE_CHARACTERS)
        cut = len(text) if cut < 0 else cut
        found.append(text[:cut])
        text = text[cut:]
    return found


class _Passages:
    def items(self, seed: int, count: int) -> Sequence[Item]:
        """The passages in order, up to `count`: the seed has nothing to choose."""
        return [
            Item(f"passage-{index}", ask(text, id=f"passage-{index}", max_tokens=1))
            for index, text in enumerate(passages()[:count])
        ]


class PerplexitySuite(_Passages):
    """How well an engine predicts each passage."""

    name = "perplexity"
    metrics = (NLL, BITS)

    async def measure(self, engine: Engine, item: Item) -> Mapping[str, float]:
        """Log-probabilities of the passage's tokens but the first."""
        text, tokens = await _tokens(engine, item)
        found = await logprobs(engine, tokens)
        bits = -sum(found) / math.log(2)
        return {"nll": -sum(found) / len(found), "bits_per_byte": bits / len(text.encode())}


class DivergenceSuite(_Passages):
    """How far an engine's predictions are from the reference's."""

    name = "kl"

    def __init__(self, reference: Engine, engine: Engine) -> None:
        """Both are started. They decide whether the whole vocabulary is compared."""
        self._reference = reference
        self._whole = reference.capabilities().score and engine.capabilities().score
        self.metrics = (KL if self._whole else KL_TOP, TOP_1)

    async def measure(self, engine: Engine, item: Item) -> Mapping[str, float]:
        """Both engines over the passage's tokens.

        Raises:
            Unsupported: the engines cut the passage into different tokens, or one neither scores nor echoes with
                log-probabilities.
        """
        _, tokens = await _tokens(engine, item)
        _, others = await _tokens(self._reference, item)
        if tokens != others:
            raise Unsupported(
                "divergence needs two engines with the same tokenizer, but they cut the text differently",
                param="against",
                hint="compare bits_per_byte of the suite perplexity instead",
            )
        return await (self._over_all if self._whole else self._over_top)(engine, tokens)

    async def _over_all(self, engine: Engine, tokens: list[int]) -> Mapping[str, float]:
        import numpy as np

        p = (await self._reference.score(tokens)).top_logprobs.astype(np.float64)
        q = (await engine.score(tokens)).top_logprobs.astype(np.float64)
        kl = (np.exp(p) * (p - q)).sum(axis=-1)
        return {"kl": float(kl.mean()), "top_1": float((p.argmax(-1) == q.argmax(-1)).mean())}

    async def _over_top(self, engine: Engine, tokens: list[int]) -> Mapping[str, float]:
        p, q = await _top(self._reference, tokens), await _top(engine, tokens)
        kl = [_bucketed(a, b) for a, b in zip(p, q, strict=True)]
        same = [max(a, key=a.__getitem__) == max(b, key=b.__getitem__) for a, b in zip(p, q, strict=True)]
        return {"kl_top_k": sum(kl) / len(kl), "top_1": sum(same) / len(same)}


async def _tokens(engine: Engine, item: Item) -> tuple[str, list[int]]:
    if not engine.capabilities().tokenize:
        raise Unsupported(f"engine '{engine.name}' does not tokenize, so it cannot be scored", param="tokenize")
    text = str(item.request.prompt)
    return text, await engine.tokenize(text)


async def _top(engine: Engine, tokens: list[int]) -> list[dict[bytes, float]]:
    """At each position but the first: log-probability of the most likely tokens, by their bytes.

    Servers of other makes tell a token's text and not its number, so text is what two engines have in common.
    """
    can = engine.capabilities()
    if not (can.echo and can.logprobs):
        raise Unsupported(f"engine '{engine.name}' offers no echo with logprobs", param="echo")
    num_told = min(TOP_K, can.max_logprobs)
    answer = await collect(engine.generate(ask(tokens, echo=True, logprobs=num_told, max_tokens=1, temperature=0.0)))
    told = answer.samples[0].logprobs[1 : len(tokens)]
    if len(told) != len(tokens) - 1 or not all(entry.top for entry in told):
        raise Unsupported(f"engine '{engine.name}' does not tell the likeliest tokens of a prompt", param="logprobs")
    return [{top.raw: top.logprob for top in entry.top if top.logprob is not None} for entry in told]


def _bucketed(p: dict[bytes, float], q: dict[bytes, float]) -> float:
    """Divergence over the tokens that both name, with everything else as one token: never more than the true one."""
    pairs = [(math.exp(p[token]), math.exp(q[token])) for token in p.keys() & q.keys()]
    rest = (max(1e-12, 1 - sum(a for a, _ in pairs)), max(1e-12, 1 - sum(b for _, b in pairs)))
    return max(0.0, sum(a * math.log(a / b) for a, b in [*pairs, rest] if a > 0 and b > 0))
