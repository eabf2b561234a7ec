"""The suite `agreement`: does an engine still say what the incumbent says? It needs no labels.

Both are asked for their likeliest tokens, and that outright: what is left out each side would fill in by itself, one
with the penalty for repetition that the model's makers recommend and the other with none. Disagreement is no error in
itself; agreement is evidence that a change of precision or of a kernel changed nothing that can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from temper.asking import Answer, collect
from temper.engines.base import Engine
from temper.measure.quality import texts
from temper.measure.quality.answers import final_text
from temper.measure.quality.generated import GeneratedSuite
from temper.measure.quality.generators import words as word_problems
from temper.measure.quality.suite import Item, Metric
from temper.measure.quality.writing import WritingSuite
from temper.types import Limits, Sampling

MAX_TOKENS = 64
LIKELIEST = Sampling(
    temperature=0.0, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, no_repeat_ngram_size=0
)

METRICS = (
    Metric("token_agreement", "share of positions that hold the same token, of the longer answer's; all that follows "
           "the first difference may differ for that alone", margin=0.05),
    Metric("exact", "share of answers that are the same to the last character", kind="share", margin=0.05),
    Metric("similarity", "F1 of the longest common subsequence of words (ROUGE-L), no embeddings", margin=0.05),
    Metric("common_prefix", "share of the longer answer before the first difference", margin=0.05),
)  # fmt: skip


class AgreementSuite:
    """Stories and word problems, answered greedily by both engines."""

    name = "agreement"
    metrics = METRICS

    def __init__(self, incumbent: Engine) -> None:
        """`incumbent` is started."""
        self._incumbent = incumbent
        self._sources = (WritingSuite(), GeneratedSuite("words", word_problems.english))

    def items(self, seed: int, count: int) -> Sequence[Item]:
        """Stories and problems by turns."""
        drawn = [source.items(seed, count) for source in self._sources]
        return [drawn[index % len(drawn)][index] for index in range(count)]

    async def measure(self, engine: Engine, item: Item) -> Mapping[str, float]:
        """Ask both, one after the other, and compare."""
        request = replace(item.request, sampling=LIKELIEST, limits=Limits(max_tokens=MAX_TOKENS), logprobs=None)
        ours = await collect(engine.generate(request))
        theirs = await collect(self._incumbent.generate(request))
        a, b = _units(theirs, ours)
        same = [x == y for x, y in zip(a, b, strict=False)]
        longest = max(len(a), len(b))
        prefix = same.index(False) if False in same else len(same)
        return {
            "token_agreement": sum(same) / longest if longest else 1.0,
            "exact": float(_whole(ours) == _whole(theirs)),
            "similarity": texts.common_share(texts.words(_whole(theirs)), texts.words(_whole(ours))),
            "common_prefix": prefix / longest if longest else 1.0,
        }


def _whole(answer: Answer) -> str:
    return answer.reasoning + final_text(answer)


def _units(theirs: Answer, ours: Answer) -> tuple[Sequence[object], Sequence[object]]:
    """Token ids where both tell them, else words."""
    a, b = theirs.samples[0].token_ids, ours.samples[0].token_ids
    return (a, b) if a and b else (_whole(theirs).split(), _whole(ours).split())
