"""Near-duplicates: MinHash finds candidates, and their similarity is then worked out exactly.

Similarity is Jaccard's, of the sets of three words in a row (in Chinese: three characters). The index holds bands of
signatures, no text: who asks gives the text of a candidate back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from temper.errors import Invalid, MissingExtra
from temper.measure.quality.texts import words

NUM_PERMUTATIONS: Final = 128
NUM_BANDS: Final = 16
"""Of 8 rows: two texts of similarity s become candidates with 1 - (1 - s^8)^16: above 0.9999 at 0.95, 0.95 at 0.8."""
SHINGLE: Final = 3
SEED: Final = 1
MIN_THRESHOLD: Final = 0.7


def shingles(text: str) -> frozenset[str]:
    """What a text is compared by."""
    units = words(text)
    if len(units) < SHINGLE:
        return frozenset((" ".join(units),))
    return frozenset(" ".join(units[at : at + SHINGLE]) for at in range(len(units) - SHINGLE + 1))


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard's: what they share ÷ what either has."""
    return len(a & b) / len(a | b) if a or b else 1.0


class NearIndex:
    """Texts that were seen, by number."""

    def __init__(self, threshold: float, text_of: Callable[[int], str]) -> None:
        """`text_of` gives the text of a number that was added.

        Raises:
            MissingExtra: rensa is not installed.
            Invalid: the threshold lies where MinHash would miss too many.
        """
        try:
            import rensa
        except ImportError as error:
            raise MissingExtra(
                f"finding near-duplicates needs the package {error.name}", hint="pip install 'temper-llm[data]'"
            ) from error
        if not MIN_THRESHOLD <= threshold <= 1:
            raise Invalid(f"near-duplicates share between {MIN_THRESHOLD} and 1 of their word triples, but the "
                          f"threshold is {threshold}", param="near")  # fmt: skip
        self._threshold = threshold
        self._text_of = text_of
        self._make: Callable[..., Any] = rensa.RMinHash
        self._index: Any = rensa.RMinHashLSH(threshold=threshold, num_perm=NUM_PERMUTATIONS, num_bands=NUM_BANDS)

    def add(self, number: int, text: str) -> None:
        """Remember a text."""
        self._index.insert(number, self._sketch(shingles(text)))

    def add_if_new(self, number: int, text: str) -> tuple[int, float] | None:
        """Remember a text unless one like it is known: then that one, the most similar."""
        own = shingles(text)
        sketch = self._sketch(own)
        found = self._measured(own, sketch)
        if not found:
            self._index.insert(number, sketch)
        return _closest(found)

    def nearest(self, text: str) -> tuple[int, float] | None:
        """The most similar text that reaches the threshold, and its similarity; None where there is none."""
        return _closest(self.all_near(text))

    def all_near(self, text: str) -> list[tuple[int, float]]:
        """Every text that reaches the threshold."""
        own = shingles(text)
        return self._measured(own, self._sketch(own))

    def _measured(self, own: frozenset[str], sketch: Any) -> list[tuple[int, float]]:
        candidates = sorted(set(self._index.query(sketch)))
        measured = [(number, similarity(own, shingles(self._text_of(number)))) for number in candidates]
        return [(number, share) for number, share in measured if share >= self._threshold]

    def _sketch(self, units: frozenset[str]) -> Any:
        sketch = self._make(num_perm=NUM_PERMUTATIONS, seed=SEED)
        sketch.update(sorted(units))
        return sketch


def _closest(found: list[tuple[int, float]]) -> tuple[int, float] | None:
    return max(found, key=lambda pair: (pair[1], -pair[0])) if found else None
