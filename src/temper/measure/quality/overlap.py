"""The suite `overlap`: BLEU and ROUGE-L against reference texts, from a file or from records to be told in a sentence.

Counts are sacrebleu's and rouge-score's own, which papers use; they measure shared words, not meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from temper.asking import Answer, Prompt, ask
from temper.errors import Invalid, MissingExtra
from temper.measure.quality.answers import final_text
from temper.measure.quality.suite import Item, Metric, draw, request_seed
from temper.measure.quality.texts import words

MAX_TOKENS = 128

METRICS = (
    Metric("bleu_4", "mean sentence BLEU-4 (sacrebleu, exponential smoothing), 0 to 1"),
    Metric("rouge_l", "mean F1 of ROUGE-L (rouge-score; Chinese by characters), best reference, 0 to 1"),
    Metric("rouge_1", "mean F1 of ROUGE-1, best reference, 0 to 1"),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt, and texts that would be good answers."""

    prompt: Prompt
    references: tuple[str, ...]


class OverlapSuite:
    """Answers beside reference texts."""

    name = "overlap"
    metrics = METRICS

    def __init__(self, path: Path | None = None) -> None:
        """`path`: JSON lines with `prompt` or `messages`, and `references`; else records are drawn from the seed.

        Raises:
            MissingExtra: sacrebleu or rouge-score is not installed.
            Invalid: a line of the file is not of that form.
        """
        if find_spec("sacrebleu") is None or find_spec("rouge_score") is None:
            raise MissingExtra("BLEU and ROUGE need sacrebleu and rouge-score", hint="pip install 'temper-llm[evals]'")
        self._pairs = None if path is None else _read(path)
        self._score = _scorer()

    def items(self, seed: int, count: int) -> Sequence[Item]:
        """Lines of the file in an order that the seed decides, or as many records as asked for."""
        if self._pairs is None:
            pairs = [_record(seed, index) for index in range(count)]
        else:
            pairs = list(self._pairs)
            draw(seed, self.name).shuffle(pairs)
        return [self._item(seed, index, pair) for index, pair in enumerate(pairs[:count])]

    def score(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Overlap with the references."""
        return self._score(final_text(answer), item.reference.references)

    def _item(self, seed: int, index: int, pair: Pair) -> Item:
        request = ask(
            pair.prompt,
            id=f"overlap-{seed}-{index}",
            max_tokens=MAX_TOKENS,
            seed=request_seed(seed, self.name, index),
        )
        return Item(f"overlap-{index}", request, pair)


def _scorer() -> Callable[[str, Sequence[str]], dict[str, float]]:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    class Tokenizer:
        def tokenize(self, text: str) -> list[str]:
            return words(text)

    rouge = RougeScorer(["rouge1", "rougeL"], tokenizer=Tokenizer())
    bleu = {language: BLEU(effective_order=True, tokenize=language) for language in ("13a", "zh")}

    def score(text: str, references: Sequence[str]) -> dict[str, float]:
        chinese = any("\u3400" <= character <= "\u9fff" for character in references[0])
        found = [rouge.score(reference, text) for reference in references]
        return {
            "bleu_4": bleu["zh" if chinese else "13a"].sentence_score(text, list(references)).score / 100,
            "rouge_l": max(each["rougeL"].fmeasure for each in found),
            "rouge_1": max(each["rouge1"].fmeasure for each in found),
        }

    return score


def _read(path: Path) -> list[Pair]:
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(_pair(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise Invalid(
                f"{path.name}, line {number}: {error}",
                param="pairs",
                hint='a line is {"prompt": "…" or "messages": […], "references": ["…"]}',
            ) from None
    if not found:
        raise Invalid(f"{path.name} holds no pairs", param="pairs")
    return found


def _pair(entry: dict[str, Any]) -> Pair:
    references = entry["references"]
    if not isinstance(references, list) or not references or not all(isinstance(text, str) for text in references):
        raise ValueError("'references' is a list of texts, at least one")
    prompt = entry["messages"] if "messages" in entry else [{"role": "user", "content": str(entry["prompt"])}]
    return Pair(prompt, tuple(references))


_CITIES = ("Lisbon", "Oslo", "Quito", "Nairobi", "Hanoi", "Turin", "Perth", "Cairo")
_SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy")


def _record(seed: int, index: int) -> Pair:
    """A weather record and the plain ways to say it."""
    rng = draw(seed, "overlap", index)
    city, sky, high, low = rng.choice(_CITIES), rng.choice(_SKIES), rng.randint(15, 35), rng.randint(0, 14)
    day = rng.choice(("today", "tomorrow"))
    prompt = (
        "Tell this weather record in one plain sentence, with all of its facts.\n"
        f"city: {city}; day: {day}; sky: {sky}; high: {high} degrees; low: {low} degrees"
    )
    references = (
        f"In {city} it will be {sky} {day}, with a high of {high} degrees and a low of {low} degrees.",
        f"{day.capitalize()} it will be {sky} in {city}, with a high of {high} degrees and a low of {low} degrees.",
        f"The weather in {city} {day} is {sky} with a high of {high} degrees and a low of {low} degrees.",
    )
    return Pair([{"role": "user", "content": prompt}], references)
