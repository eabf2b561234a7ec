"""The schema of a distillation: who teaches, what the student is cut from, and what is learned of the teacher.

Knows no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from temper.profile.section import Section, Tunable
from temper.refine.train.recipe import DataConfig, Training


class StudentConfig(Section):
    """How the student is made of the teacher. Without any of these it is a copy: self-distillation, which heals."""

    layers: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Layers that it keeps; left out: all."""
    choose: Literal["evenly", "importance"] = "importance"
    """Which ones stay: evenly spread, or those without which the teacher predicts worst."""
    at_once: Annotated[int, Field(ge=1, le=4096)] = 2
    """`importance`: layers that go between two measurements."""
    mlp_width: Annotated[int, Field(ge=1)] | None = None
    """Neurons that each MLP keeps, the most active ones; left out: all."""
    examples: Annotated[int, Field(ge=1, le=4096)] = 16
    """Training examples on which importance is measured."""


class DistillLossConfig(Section):
    """alpha · T² · KL(teacher ‖ student) + (1 − alpha) · cross-entropy + gamma · distance of hidden states."""

    temperature: Annotated[float, Field(gt=0, le=100), Tunable(1.0, 4.0)] = 1.5
    """T: both distributions are softened by it."""
    alpha: Annotated[float, Field(ge=0, le=1), Tunable(0.1, 0.9)] = 0.7
    """Weight of the teacher's distribution against that of the text itself."""
    gamma: Annotated[float, Field(ge=0, le=100), Tunable(0.01, 1.0, "log")] = 0.1
    """Weight of the hidden states; 0: they are not compared, and the teacher does not run while training."""
    depths: Annotated[tuple[float, ...], Field(strict=False)] = (0.4, 0.8)
    """Shares of the depth at which hidden states are compared."""
    top_k: Annotated[int, Field(ge=1, le=4096)] = 32
    """Tokens of the teacher's distribution that are kept for each target."""

    @model_validator(mode="after")
    def _within(self) -> DistillLossConfig:
        if outside := [depth for depth in self.depths if not 0 < depth < 1]:
            raise ValueError(f"depths lie between 0 (the embedding) and 1 (the last layer), but one is {outside[0]}")
        if self.gamma and not self.depths:
            raise ValueError("gamma weighs hidden states at depths, but there are none; give some, or set gamma = 0")
        return self


class AdversarialConfig(Section):
    """Prompts made harder, with the answers left as they are; see `measure.quality.adversarial`."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the examples."""
    kinds: Annotated[tuple[Literal["typos", "distractor"], ...], Field(min_length=1, strict=False)] = (
        "typos",
        "distractor",
    )
    """How: letters mixed up, or a sentence put in that has nothing to do with it."""


class DistillRecipe(Training):
    """`temper refine distill`."""

    teacher: Annotated[str, Field(min_length=1)]
    """The checkpoint that teaches, and of which the student is made."""
    out: Annotated[str, Field(min_length=1)]
    """Folder of the run: the teacher's predictions, its state, its curve, and the checkpoints `last` and `best`."""
    data: DataConfig
    student: StudentConfig = StudentConfig()
    loss: DistillLossConfig = DistillLossConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
