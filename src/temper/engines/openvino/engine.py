"""The openvino engine: the native engine's door and output, GenAI's pipeline in the middle.

`step` is the loop: let GenAI compute, publish what it chose, end what our output says is over. What
GenAI cannot do is refused by name before anything is enqueued.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from temper.engines.base import Capabilities, Scores, Stats
from temper.engines.native.engine import NativeEngine
from temper.engines.native.prompts import Model
from temper.engines.native.publish import Publisher
from temper.engines.native.rows import token_logprob
from temper.engines.native.scheduler import Scheduler
from temper.engines.native.sequence import Deliver, Job, Sequence
from temper.engines.openvino.pipeline import GenaiPipeline, Step
from temper.errors import Unsupported
from temper.types import Request, TokenLogprob

if TYPE_CHECKING:
    from temper.profile.schema import Profile

_LIMITS = {"logprobs": " above 0", "echo": " while kv.prefix_cache is on"}


class OpenVINOEngine(NativeEngine):
    """Continuous batching by OpenVINO GenAI."""

    def step(self) -> bool:
        """One iteration; True when there is more to do."""
        self._publisher.expire()
        began = time.monotonic()
        for step in self._pipeline.step():
            self._publish(began, step)
        self._num_steps += 1
        self._hand_over()
        return bool(self._publisher.jobs)

    def _publish(self, began: float, step: Step) -> None:
        sequence, job = step.sequence, step.sequence.job
        if step.prompt_logprobs is not None:
            job.prompt_logprobs = tuple(
                self._named(int(token), None if i == 0 else found)
                for i, (token, found) in enumerate(zip(job.prompt.tolist(), step.prompt_logprobs, strict=True))
            )
        output = sequence.output
        assert output is not None, "every sequence here generates"
        if sequence.max_tokens == 0:
            self._publisher.publish(began, [sequence], [-1], {})
            return
        for token, found in zip(step.tokens, step.logprobs, strict=True):
            self._one(began, sequence, token, found)
            if sequence.is_over:
                return
            if output.forced:  # a thinking budget is used up: its close tag comes next, whatever GenAI chose
                while output.forced and not sequence.is_over:
                    self._one(began, sequence, output.forced[0], None)
                if not sequence.is_over:
                    self._pipeline.resend(sequence)
                return

    def _one(self, began: float, sequence: Sequence, token: int, logprob: float | None) -> None:
        named = {} if sequence.job.logprobs is None else {0: self._named(token, logprob)}
        self._publisher.publish(began, [sequence], [token], named)

    def _named(self, token: int, logprob: float | None) -> TokenLogprob:
        return token_logprob(token, logprob, (), self._model.tokenizer.token_bytes)

    def _make_ready(self, model: Model) -> None:
        self._pipeline = cast(GenaiPipeline, model.executor)
        self._num_steps = 0
        # It has all of a scheduler that a publisher asks for.
        self._publisher = Publisher(model, cast(Scheduler, self._pipeline), self._made_by)

    def capabilities(self) -> Capabilities:
        """What GenAI can do with this model: log-probabilities of the chosen tokens alone, and no others."""
        return replace(
            super().capabilities(),
            max_logprobs=0,
            echo=not self._keeps_prompts,
            seed=False,
            score=False,
            exactness="unknown",
        )

    @property
    def _keeps_prompts(self) -> bool:
        """GenAI leaves out the log-probabilities of prompt tokens that it finds in its prefix cache."""
        return self._section.kv.prefix_cache

    async def apply(self, profile: Profile) -> bool:
        """GenAI takes nothing over while it runs."""
        return False

    def stats(self) -> Stats:
        """A snapshot; reads the step thread's counters without waiting for it."""
        if self._stepper is None:
            return Stats()
        pipeline, publisher, last = self._pipeline, self._publisher, self._stepper.last_step
        used, budget = pipeline.used_bytes, pipeline.num_blocks * pipeline.kv_block_bytes
        return Stats(
            num_running=pipeline.num_running,
            num_waiting=max(pipeline.num_waiting, self._admission.num_waiting),
            kv_used_bytes=used,
            kv_budget_bytes=budget,
            kv_usage=used / budget,
            prompt_tokens_total=publisher.prompt_tokens_total,
            generation_tokens_total=publisher.generation_tokens_total,
            steps_total=self._num_steps,
            last_step_age_s=None if last is None else time.monotonic() - last,
            details=self._model.details,
        )

    async def open(self, request: Request, deliver: Deliver) -> Job:
        """Admit, prepare and enqueue, unless the request asks for what GenAI cannot do."""
        asked = request.sampling
        for param, wanted in (
            ("logprobs", bool(request.logprobs)),
            ("echo", request.echo and self._keeps_prompts),
            ("logit_bias", bool(asked.logit_bias)),
            ("no_repeat_ngram_size", bool(asked.no_repeat_ngram_size)),
            ("temperature_schedule", asked.temperature_schedule is not None),
        ):
            if wanted:
                raise Unsupported(
                    f"engine 'openvino' cannot do {param}" + _LIMITS.get(param, ""),
                    param=param,
                    hint="leave it out, or use the native engine",
                )
        return await super().open(request, deliver)

    async def score(self, tokens: Many[int], top_k: int | None = None) -> Scores:
        """Refused: GenAI shows no distributions. An echo with log-probabilities tells those of given tokens."""
        raise Unsupported("engine 'openvino' does not offer score", hint="echo a prompt with logprobs 0")
