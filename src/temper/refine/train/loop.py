"""The training loop: rows → loss → gradients → AdamW → history, from wherever the run stands.

Every step is a function of the weights and its own number: order, dropout and learning rate are keyed by it. So a run
that was killed ends in the same bits as one that was not. The loss is given; what it makes of a batch is not known
here, and neither is where the model came from.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from temper.errors import TemperError
from temper.refine.telling import Tell
from temper.refine.train.activations import few_activations
from temper.refine.train.attention import side_by_side
from temper.refine.train.batches import Order, Row, collate, micro_batches
from temper.refine.train.dropout import residual_dropout
from temper.refine.train.examples import Example
from temper.refine.train.losses import Loss, answer_loss
from temper.refine.train.memory import check, estimate
from temper.refine.train.optimizer import AdamW
from temper.refine.train.peers import Alone, Peers
from temper.refine.train.recipe import Training
from temper.refine.train.run import Run
from temper.refine.train.schedule import learning_rate

Watch = Callable[[Mapping[str, Any]], None]
"""Told each line of the history as it is written."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    num_steps: int
    planned_steps: int
    best_step: int | None
    """Step with the lowest loss on held-out examples; None where there are none."""
    best_loss: float | None
    """That loss, in nats a token."""
    stopped_early: bool


@dataclass(slots=True)
class _Standing:
    """What changes while a run goes on, beside weights and moments."""

    step: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    num_worse: int = 0
    """Evaluations since the best."""
    stopped_early: bool = False


def train(
    model: Any,
    examples: Sequence[Example],
    settings: Training,
    run: Run,
    *,
    held_out: Sequence[Example] = (),
    loss: Loss = answer_loss,
    peers: Peers | None = None,
    tell: Tell = lambda what, done, total: None,
    watch: Watch = lambda line: None,
) -> Outcome:
    """Train the parameters of `model` that ask for a gradient, in place; they hold the last step's weights at the end.

    `model` is a transformers causal language model; `loss` is called inside `side_by_side` and the run's precision.
    `run.resolved` has `precision` and `threads`.

    Raises:
        Invalid: the memory will not do, or nothing is to be trained.
        TemperError: the loss is no longer finite.
    """
    together: Peers = peers or Alone()
    order = Order([len(e) for e in examples], settings.seed, settings.batch.packing, settings.batch.context_length)
    total = settings.schedule.steps or order.num_steps(settings.schedule.epochs or 1, settings.batch.batch_size)
    epochs = None if settings.schedule.steps else settings.schedule.epochs or 1
    trainer = _Trainer(model, settings, run, loss, together, total)
    at = trainer.resume()
    with prepared(model, settings, run.resolved):
        longest = settings.batch.context_length if settings.batch.packing else max(map(len, examples))
        check(estimate(model, settings, loss, longest, run.resolved), settings)
        while at.step < total and not at.stopped_early:
            began = time.monotonic()
            rows = order.step(at.step, settings.batch.batch_size, epochs)
            line = trainer.step(at.step, examples, rows)
            at.step += 1
            if held_out and (at.step % settings.evaluation.every == 0 or at.step == total):
                line["validation"] = trainer.evaluate(held_out)
                trainer.judge(line["validation"], at)
            line = {"step": at.step, **line, "seconds": round(time.monotonic() - began, 3)}
            if together.rank == 0:
                run.record(line)
                tell("training", at.step, total)
                watch(line)
            if at.step % settings.saving.every == 0 or at.step == total or at.stopped_early:
                trainer.save(at)
    return Outcome(at.step, total, at.best_step, at.best_loss, at.stopped_early)


@contextmanager
def prepared(model: Any, settings: Training, resolved: Mapping[str, Any]) -> Iterator[None]:
    """Within, `model` takes batches, drops out, keeps few activations and computes in the run's precision."""
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(side_by_side(model))
        stack.enter_context(residual_dropout(model, settings.regularization.dropout))
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(resolved["threads"])
        if settings.compute.checkpoint_activations:
            stack.enter_context(few_activations(model))
        stack.callback(model.train, model.training)
        yield


@contextmanager
def keyed(seed: int, step: int, micro: int) -> Iterator[None]:
    """Torch's random numbers of one micro-batch, which depend on nothing before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng([seed, step, micro]).integers(1 << 62)))
        yield


class _Trainer:
    """The verbs of the loop over one model."""

    def __init__(self, model: Any, settings: Training, run: Run, loss: Loss, peers: Peers, total: int) -> None:
        self._model, self._settings, self._run, self._loss, self._peers = model, settings, run, loss, peers
        self._total = total
        self._optimizer = AdamW(model, settings.optimizer)
        self._bf16 = run.resolved["precision"] == "bf16"
        self._names: list[str] = []

    def resume(self) -> _Standing:
        """Where the run stands, with weights and moments of then in place."""
        state = self._run.load()
        if state is None:
            return _Standing()
        self._optimizer.load(state.tensors, state.step)
        self._peers.load(self._run.load_peer(self._peers.rank, state.step) if self._peers.size > 1 else {})
        return _Standing(**{name: state.numbers[name] for name in _Standing.__slots__})

    def step(self, step: int, examples: Sequence[Example], rows: Sequence[Row]) -> dict[str, Any]:
        """One step of the optimizer; returns its line of the history."""
        settings, peers = self._settings, self._peers
        members = [at for row in rows for at in row]
        num_targets = sum(examples[at].num_targets for at in members)
        sums: Counter[str] = Counter()
        self._model.train()
        for micro, group in enumerate(micro_batches(rows, settings.batch.micro_batch)):
            if micro % peers.size != peers.rank:
                continue
            with keyed(settings.seed, step, micro), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                terms = self._loss(self._model, collate([examples[at] for at in group]))
            (terms.total / num_targets).backward()
            sums.update({"loss": float(terms.total.detach()), **terms.parts})
        self._names = self._names or sorted(sums)  # a process without a micro-batch in the last step knows them too
        added = peers.add_numbers([sums[name] for name in self._names])
        means = {name: value / num_targets for name, value in zip(self._names, added, strict=True)}
        if not all(math.isfinite(value) for value in means.values()):
            raise TemperError(f"the loss of step {step + 1} is {means['loss']}: training has diverged",
                              hint="lower optimizer.learning_rate, or lengthen schedule.warmup_steps")  # fmt: skip
        peers.add_gradients(self._optimizer.gradients(), step)
        rate = learning_rate(settings.schedule, settings.optimizer.learning_rate, step, self._total)
        return {
            "loss": means.pop("loss"),
            "parts": means,
            "learning_rate": rate,
            "gradient_norm": self._optimizer.step(rate),
            "tokens": sum(len(examples[at]) for at in members),
            "targets": num_targets,
        }

    def evaluate(self, held_out: Sequence[Example]) -> float:
        """Cross-entropy of held-out targets, in nats a token."""
        settings, peers = self._settings, self._peers
        chosen = held_out[: settings.evaluation.examples]
        sums = [0.0, 0.0]
        self._model.eval()
        for number, begin in enumerate(range(0, len(chosen), settings.batch.micro_batch)):
            if number % peers.size == peers.rank:
                batch = collate(chosen[begin : begin + settings.batch.micro_batch])
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                    sums[0] += float(answer_loss(self._model, batch).total)
                sums[1] += batch.num_targets
        loss, num_targets = peers.add_numbers(sums)
        return loss / num_targets

    def judge(self, loss: float, at: _Standing) -> None:
        """Keep the weights if they are the best so far; stop when there were no better ones for long."""
        evaluation = self._settings.evaluation
        if at.best_loss is None or loss < at.best_loss - evaluation.min_gain:
            at.best_step, at.best_loss, at.num_worse = at.step, loss, 0
            if self._peers.rank == 0:
                self._run.save_best(at.step, self._optimizer.weights())
        else:
            at.num_worse += 1
            at.stopped_early = evaluation.patience is not None and at.num_worse >= evaluation.patience

    def save(self, at: _Standing) -> None:
        """Write the state."""
        if self._peers.size > 1:
            self._check_equal()
            self._run.save_peer(self._peers.rank, at.step, self._peers.state())
            self._peers.add_numbers([0.0])  # all have written theirs
        if self._peers.rank == 0:
            numbers = {name: getattr(at, name) for name in _Standing.__slots__}
            self._run.save(at.step, self._optimizer.state(), numbers)

    def _check_equal(self) -> None:
        """All processes must hold the same weights: nothing that differs may be saved as one."""
        own = sum(float(values.double().sum()) for values in self._optimizer.weights().values())
        added, squares = self._peers.add_numbers([own, own * own])
        spread = squares / self._peers.size - (added / self._peers.size) ** 2
        if abs(spread) > 1e-9 * max(1.0, own * own):
            raise TemperError("the processes of this training hold different weights", hint="start it again")
