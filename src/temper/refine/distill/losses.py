"""What a student learns from: the teacher's distribution, the text itself, and the teacher's hidden states.

    alpha · T² · KL(teacher ‖ student, both at temperature T) + (1 − alpha) · cross-entropy + gamma · hidden

Source: Hinton et al., arXiv 1503.02531. Of the teacher's distribution the most likely tokens are kept; both sides are
renormalized over those, and the cross-entropy keeps the rest small. Hidden states are compared relative to the
teacher's size, ‖s − t‖² / ‖t‖², because it grows a hundredfold through the layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from temper.errors import Invalid
from temper.refine.distill.recipe import DistillLossConfig
from temper.refine.train.attention import inputs, side_by_side
from temper.refine.train.batches import Batch
from temper.refine.train.losses import Terms

TOP_IDS: Final = "teacher_ids"
"""Name of the extra int32 [targets, k]: the teacher's most likely tokens at each target."""
TOP_LOGPROBS: Final = "teacher_logprobs"
"""Name of the extra float16 [targets, k]: their log-probabilities at temperature 1."""


class DistillLoss:
    """A `Loss` for the loop, with a teacher in it."""

    def __init__(self, config: DistillLossConfig, student: Any, teacher: Any | None) -> None:
        """`teacher` is the model whose hidden states are compared; None where `gamma` is 0.

        Raises:
            Invalid: their hidden states differ in width.
        """
        self._config = config
        self._at: list[tuple[int, int]] = []
        self._teacher: Any = None
        if not config.gamma:
            return
        assert teacher is not None
        ours, theirs = student.config.hidden_size, teacher.config.hidden_size
        if ours != theirs:
            raise Invalid(f"hidden states of one width are compared, but the student's have {ours} numbers and the "
                          f"teacher's {theirs}", param="loss.gamma", hint="set loss.gamma = 0")  # fmt: skip
        self._at = [(at_depth(student, depth), at_depth(teacher, depth)) for depth in config.depths]
        self._teacher = teacher.eval().requires_grad_(False)
        # Layers above the last one that is looked at are never asked.
        self._teacher.model.layers = self._teacher.model.layers[: max(theirs for _, theirs in self._at)]
        self._teacher.config.num_hidden_layers = len(self._teacher.model.layers)

    def __call__(self, model: Any, batch: Batch) -> Terms:
        """Sums over the batch's targets; `parts` are the summands as they are weighted."""
        config = self._config
        with _watched(model, [ours for ours, _ in self._at]) as ours:
            logits = model(**inputs(batch), logits_to_keep=batch.rows).logits[0].float()
        hard = cross_entropy(logits, batch.targets, reduction="sum")
        soft = self._soft(logits, batch)
        parts = {
            "soft": config.alpha * config.temperature**2 * soft,
            "hard": (1 - config.alpha) * hard,
        }
        if self._teacher is not None:
            parts["hidden"] = config.gamma * self._hidden(ours, batch)
        total: Tensor = sum(parts.values(), torch.zeros(()))
        return Terms(total, {name: float(value.detach()) for name, value in parts.items()})

    def _soft(self, logits: Tensor, batch: Batch) -> Tensor:
        """Σ KL(teacher ‖ student) over the kept tokens, both renormalized at the temperature."""
        if TOP_IDS not in batch.extras:  # rows made up to reckon memory on: no teacher was asked about them
            return torch.zeros(())
        ids = batch.extras[TOP_IDS].long()
        temperature = self._config.temperature
        theirs = torch.log_softmax(batch.extras[TOP_LOGPROBS].float() / temperature, dim=-1)
        ours = torch.log_softmax(logits.gather(1, ids) / temperature, dim=-1)
        return (theirs.exp() * (theirs - ours)).sum()

    def _hidden(self, ours: Sequence[Tensor], batch: Batch) -> Tensor:
        """Σ over targets of the mean over depths of ‖s − t‖² / ‖t‖²."""
        with torch.no_grad(), side_by_side(self._teacher), _watched(self._teacher, [at for _, at in self._at]) as their:
            self._teacher.model(**inputs(batch))
        found = torch.zeros(())
        for mine, told in zip(ours, their, strict=True):
            target = told[0, batch.rows].float()
            distance = (mine[0, batch.rows].float() - target).square().sum(dim=-1)
            found = found + (distance / target.square().sum(dim=-1)).sum()
        return found / len(self._at)


def at_depth(model: Any, depth: float) -> int:
    """How many layers lie below `depth` of a model: the number of `hidden_states` in transformers' counting, in which
    0 is the embedding; never the last, which transformers gives after the norm."""
    num_layers = int(model.config.num_hidden_layers)
    return min(max(1, round(depth * num_layers)), max(1, num_layers - 1))


@contextmanager
def _watched(model: Any, numbers: Sequence[int]) -> Iterator[list[Tensor]]:
    """Within, a pass of `model` fills the list with what comes out of so many layers."""
    found: dict[int, Tensor] = {}
    states: list[Tensor] = []
    wanted = sorted(set(numbers))

    def keep(number: int) -> Any:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            found[number] = output[0] if isinstance(output, tuple) else output
            if len(found) == len(wanted):
                states[:] = [found[at] for at in numbers]

        return hook

    hooks = [model.model.layers[number - 1].register_forward_hook(keep(number)) for number in wanted]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()
