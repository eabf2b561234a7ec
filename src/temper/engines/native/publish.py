"""The end of a step: tokens into sequences, sequences into events, finished work out of the engine.

Keeps the live jobs and the events waiting to be handed over. It belongs to the step thread; only
`take_outbox` results leave it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

from temper.engines.native.prompts import Model
from temper.engines.native.scheduler import Scheduler
from temper.engines.native.sequence import Job, Sequence
from temper.errors import DeadlineExceeded, TemperError
from temper.types import (
    Delta,
    Done,
    Event,
    Failed,
    Finished,
    MadeBy,
    Started,
    Timings,
    TokenLogprob,
    Usage,
)

Outbox = list[tuple[Job, list[Event]]]


class Publisher:
    """Follows every job from its first step to its last event."""

    def __init__(self, model: Model, scheduler: Scheduler, made_by: Callable[[Job], MadeBy]) -> None:
        self._model = model
        self._scheduler = scheduler
        self._made_by = made_by
        self._outbox: Outbox = []
        self._deadlines: list[tuple[float, int, Job]] = []
        self.jobs: set[Job] = set()
        """Everything not yet over."""
        self.prompt_tokens_total = 0
        self.generation_tokens_total = 0

    def add(self, job: Job) -> None:
        """A new job, with its sequences."""
        self.jobs.add(job)
        job.num_unfinished = len(job.sequences)
        if job.deadline is not None:
            heapq.heappush(self._deadlines, (job.deadline, job.arrival, job))
        self._scheduler.add(job.sequences)

    def publish(
        self, began: float, sequences: list[Sequence], tokens: list[int], logprobs: dict[int, TokenLogprob]
    ) -> None:
        """The step that `began` then ran: `tokens[i]` was chosen for `sequences[i]`, -1 where none was.

        `logprobs` are by index too, where they were asked for.
        """
        for i, sequence in enumerate(sequences):
            job = sequence.job
            events: list[Event] = []
            if not job.started:
                self._start(job, began, events)
            self._scheduler.commit(sequence)
            if not job.prompt_done and sequence.num_computed >= sequence.num_prompt:
                job.prompt_done = True
            if tokens[i] >= 0:
                self._advance(sequence, tokens[i], logprobs.get(i), events)
            elif sequence.max_tokens == 0 and job.prompt_done:
                self._echo(sequence, events)
                if job.rules is not None:
                    events.append(Finished(sequence.index, "length"))
                self._leave(sequence, events)
            if events:
                self._outbox.append((job, events))

    def cancel(self, job: Job) -> None:
        """Nobody wants it any more: free all it holds, say nothing."""
        if job in self.jobs:
            self._close(job)

    def fail(self, job: Job, error: TemperError) -> None:
        """End the job's stream with `error`."""
        if job in self.jobs:
            self._close(job)
            self._outbox.append((job, [Failed(error)]))

    def expire(self) -> None:
        """Fail what is past its deadline."""
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, job = heapq.heappop(self._deadlines)
            if job in self.jobs:
                waited = now - job.time_arrived
                self.fail(job, DeadlineExceeded(f"not complete {waited:.1f} s after arrival, its deadline"))

    def take_outbox(self) -> Outbox:
        """The events since last time, for all jobs together."""
        outbox, self._outbox = self._outbox, []
        return outbox

    # -- inside --------------------------------------------------------------------------------------

    def _start(self, job: Job, began: float, events: list[Event]) -> None:
        job.started = True
        job.time_started = began
        self.prompt_tokens_total += len(job.prompt)
        events.append(Started(len(job.prompt), job.cached_tokens))

    def _advance(self, sequence: Sequence, token: int, logprob: TokenLogprob | None, events: list[Event]) -> None:
        output = sequence.output
        assert output is not None, "only generating sequences are sampled"
        job = sequence.job
        if not job.time_first_token:
            job.time_first_token = time.monotonic()
        if sequence.num_tokens == sequence.num_prompt:
            self._echo(sequence, events)
        sequence.tokens[sequence.num_tokens] = token
        sequence.num_tokens += 1
        self.generation_tokens_total += 1
        events += output.push(sequence.tokens, sequence.num_tokens, logprob)
        if output.finished:
            job.completion_tokens += output.num_generated
            job.reasoning_tokens += output.num_reasoning
            self._leave(sequence, events)

    def _echo(self, sequence: Sequence, events: list[Event]) -> None:
        job = sequence.job
        if job.prompt_text is not None:
            if job.row_sink is not None and job.prompt_logprobs is None:
                job.prompt_logprobs = job.row_sink.token_logprobs()
            ids = tuple(job.prompt.tolist())
            events.append(Delta(sequence.index, job.prompt_text, ids, job.prompt_logprobs, "prompt"))

    def _leave(self, sequence: Sequence, events: list[Event]) -> None:
        """A sequence is over; with the last one its job is."""
        job = sequence.job
        self._free(sequence)
        job.num_unfinished -= 1
        if job.num_unfinished == 0:
            self.jobs.discard(job)
            now = time.monotonic()
            first = job.time_first_token or now
            events.append(
                Done(
                    Usage(len(job.prompt), job.cached_tokens, job.completion_tokens, job.reasoning_tokens),
                    Timings(
                        queue_s=job.time_started - job.time_arrived,
                        prefill_s=first - job.time_started,
                        decode_s=now - first,
                        num_preemptions=job.num_preemptions,
                    ),
                    self._made_by(job),
                )
            )

    def _close(self, job: Job) -> None:
        self.jobs.discard(job)
        for sequence in job.sequences:
            if not sequence.is_over:
                self._free(sequence)

    def _free(self, sequence: Sequence) -> None:
        sequence.is_over = True
        self._scheduler.remove(sequence)
        if sequence.slot >= 0:
            self._model.executor.close_slot(sequence.slot)
            sequence.slot = -1
