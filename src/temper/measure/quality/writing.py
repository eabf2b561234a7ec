"""The suite `writing`: free text on drawn subjects, and what can be said of it without a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from temper.asking import Answer, ask
from temper.measure.quality import texts
from temper.measure.quality.answers import final_text
from temper.measure.quality.suite import Item, Metric, draw, request_seed

MAX_TOKENS = 192

_WHO = ("a lighthouse keeper", "a young baker", "an old cartographer", "a train driver", "two sisters",
        "a retired astronaut", "a street musician", "a beekeeper", "a night nurse", "a clock maker")  # fmt: skip
_WHERE = ("on a small island", "in a mountain village", "in a crowded port", "at the edge of a desert",
          "in a city of bridges", "in a valley full of fog", "on a ship in the north")  # fmt: skip
_WHAT = ("finds a letter that was never sent", "has to choose between two friends", "learns an unusual trade",
         "hears a sound that nobody else hears", "repairs something thought to be lost", "waits for the first snow",
         "keeps a promise made long ago", "meets a stranger who knows their name")  # fmt: skip

METRICS = (
    Metric("repetition", f"share of {texts.REPEATED_NGRAM}-grams of words that stood in the text before",
           better="lower", worst=None),
    Metric("distinct_2", "different pairs of words ÷ all pairs of words in the text", worst=None),
    Metric("cohesion", "mean cosine of the word counts of neighbouring sentences; high as well where it repeats itself",
           worst=None),
    Metric("surprise", "mean nats a token that the model itself found its choice unlikely by, before sampling",
           better="lower", worst=None, bounds=None, margin=0.1),
    Metric("words", "length of the answer in words", worst=None, bounds=None, margin=10),
)  # fmt: skip


class WritingSuite:
    """Short stories to write. `surprise` is there where the engine tells log-probabilities."""

    name = "writing"
    metrics = METRICS

    def __init__(self, *, logprobs: bool = False) -> None:
        """`logprobs`: ask for log-probabilities, which not every engine gives."""
        self._logprobs = 0 if logprobs else None

    def items(self, seed: int, count: int) -> Sequence[Item]:
        """As many as asked for; a subject may come up again."""
        return [self._item(seed, index) for index in range(count)]

    def score(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Every figure that this answer allows."""
        text = final_text(answer)
        units = texts.words(text)
        found = {"words": float(len(units))}
        if len(units) >= texts.REPEATED_NGRAM:
            found |= {"repetition": texts.repetition(units), "distinct_2": texts.distinct(units, 2)}
        cohesion = texts.cohesion(text)
        if cohesion is not None:
            found["cohesion"] = cohesion
        told = [entry.logprob for entry in answer.samples[0].logprobs if entry.logprob is not None]
        if told:
            found["surprise"] = -sum(told) / len(told)
        return found

    def _item(self, seed: int, index: int) -> Item:
        rng = draw(seed, self.name, index)
        subject = f"{rng.choice(_WHO)} {rng.choice(_WHERE)} who {rng.choice(_WHAT)}"
        request = ask(
            [{"role": "user", "content": f"Write a short story about {subject}."}],
            id=f"writing-{seed}-{index}",
            max_tokens=MAX_TOKENS,
            seed=request_seed(seed, self.name, index),
            logprobs=self._logprobs,
        )
        return Item(f"writing-{index}", request)
