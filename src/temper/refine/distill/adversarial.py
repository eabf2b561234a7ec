"""Records made harder before they become examples: a share of them, the same ones every time."""

from __future__ import annotations

from dataclasses import replace

from temper.measure.quality.adversarial import harder
from temper.measure.quality.suite import draw
from temper.models.checkpoint import Checkpoint
from temper.refine.data.record import Record
from temper.refine.distill.recipe import AdversarialConfig
from temper.refine.train.examples import Example, Renderer
from temper.refine.train.recipe import DataConfig


class HarderRenderer(Renderer):
    """Makes examples of records, the last question of a share of them mistyped or distracted from.

    Which records, and how, is drawn from the seed and the record itself: the order of a file does not matter.
    """

    def __init__(self, checkpoint: Checkpoint, data: DataConfig, config: AdversarialConfig, seed: int) -> None:
        super().__init__(checkpoint, loss_on=data.loss_on, turns=data.turns)
        self._config, self._seed = config, seed

    def examples(self, record: Record) -> list[Example]:
        """See `Renderer.examples`. Plain text stays as it is."""
        return super().examples(made_harder(record, self._config, self._seed))


def made_harder(record: Record, config: AdversarialConfig, seed: int) -> Record:
    """The record, or one with a harder question and the same answer."""
    turns = record.messages
    asked = [at for at, turn in enumerate(turns) if turn.role == "user"]
    rng = draw("adversarial", seed, record.content_key())
    if not asked or rng.random() >= config.share:
        return record
    at = asked[-1]
    changed = replace(turns[at], content=harder(turns[at].content, rng.choice(config.kinds), rng))
    return replace(record, messages=(*turns[:at], changed, *turns[at + 1 :]))
