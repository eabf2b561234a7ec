"""The load generator: asks an engine as a workload says, and writes down what a client saw and when.

Closed loop: so many users in turn. Open loop: each session is sent at its own time, whether or not earlier
ones are answered, and its latency counts from that time, so a server that stalls cannot hide behind requests
that were never sent (coordinated omission). Times are the event loop's own clock. It works on any `Engine`,
and judges nothing: `latency` does the arithmetic, `saturation` says whether the generator itself was too slow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from temper.engines.base import Engine
from temper.errors import TemperError
from temper.measure.saturation import Saturation, Watch
from temper.measure.workload.plan import Session
from temper.types import Delta, Done, Failed, Request, Started, ToolDelta

NO_END = "no_end"
"""Failure of a stream that just ended, with neither `Done` nor `Failed`."""
TIMEOUT = "timeout"
CRASH = "client_error"
"""Failure of the generator itself: an exception that no engine may raise."""


@dataclass(slots=True)
class Outcome:
    """One request as its client saw it; times in seconds after the start of the run."""

    name: str
    due_s: float
    """When it should be sent: latency counts from here."""
    sent_s: float
    end_s: float = 0.0
    arrivals_s: list[float] = field(default_factory=list)
    """When output came: one entry per piece of text or tool call that is not empty."""
    answer_s: float | None = None
    """When the first piece of the answer came, thinking left out."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    queue_s: float = 0.0
    """This, `prefill_s` and `decode_s` as the engine tells them in `Done`; 0 where it tells nothing."""
    prefill_s: float = 0.0
    decode_s: float = 0.0
    failure: str | None = None
    """The code of the error that ended it; None: a whole answer."""
    message: str = ""


@dataclass(slots=True)
class Run:
    """One run's outcomes, in the order in which they ended."""

    outcomes: list[Outcome]
    saturation: Saturation


async def drive(
    engine: Engine,
    sessions: Sequence[Session],
    *,
    concurrency: int | None,
    timeout_s: float,
    begin_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Run:
    """Ask `engine` all that `sessions` hold.

    With `concurrency` that many sessions are open at any time (closed loop); without, each session starts at
    its `start_s` (open loop). `begin_s` is the start on `clock`; None: now. The default clock is one for all
    processes of a machine; the event loop's own is too coarse under uvloop (1 ms). Failures are outcomes,
    never exceptions.
    """
    begin = clock() if begin_s is None else begin_s
    if begin > clock():
        await asyncio.sleep(begin - clock())
    driver = _Driver(engine, begin, timeout_s, clock)
    async with Watch(clock) as watch, asyncio.TaskGroup() as group:
        if concurrency is not None:
            waiting = iter(sessions)
            for _ in range(min(concurrency, len(sessions))):
                group.create_task(driver.user(waiting))
        else:
            group.create_task(driver.spawn(sessions, group))
    late = sorted(outcome.sent_s - outcome.due_s for outcome in driver.outcomes)
    return Run(driver.outcomes, watch.saturation(late if concurrency is None else []))


class _Driver:
    """The state of one run."""

    def __init__(self, engine: Engine, begin: float, timeout_s: float, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._begin = begin
        self._timeout_s = timeout_s
        self._clock = clock
        self.outcomes: list[Outcome] = []

    async def user(self, waiting: Iterator[Session]) -> None:
        """One user of a closed loop: takes session after session."""
        for session in waiting:
            await self._session(session, None)

    async def spawn(self, sessions: Sequence[Session], group: asyncio.TaskGroup) -> None:
        """Open loop: starts each session at its time."""
        for session in sessions:
            due = session.start_s or 0.0
            wait = self._begin + due - self._clock()
            if wait > 0:
                await asyncio.sleep(wait)
            group.create_task(self._session(session, due))

    async def _session(self, session: Session, due: float | None) -> None:
        for request in session.requests:
            outcome = await self._ask(request, due)
            self.outcomes.append(outcome)
            if session.pause_s:
                await asyncio.sleep(session.pause_s)
            due = None if due is None else outcome.end_s + session.pause_s

    async def _ask(self, request: Request, due: float | None) -> Outcome:
        sent = self._clock() - self._begin
        outcome = Outcome(request.id, sent if due is None else due, sent)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._listen(request, outcome)
        except TimeoutError:
            outcome.failure, outcome.message = TIMEOUT, f"no end within {self._timeout_s:g} s"
        except TemperError as error:
            outcome.failure, outcome.message = error.code, str(error)
        except Exception as error:
            outcome.failure, outcome.message = CRASH, f"{type(error).__name__}: {error}"
        outcome.end_s = self._clock() - self._begin
        return outcome

    async def _listen(self, request: Request, outcome: Outcome) -> None:
        """Follow one stream to its end. This stands in the path of every token: keep it short."""
        clock, begin, arrivals = self._clock, self._begin, outcome.arrivals_s
        num_tokens = 0
        outcome.failure = NO_END
        stream = self._engine.generate(request)
        try:
            async for event in stream:
                if isinstance(event, Delta):
                    if event.channel == "prompt":
                        continue
                    num_tokens += len(event.token_ids)
                    if event.text:
                        now = clock() - begin
                        arrivals.append(now)
                        if outcome.answer_s is None and event.channel == "answer":
                            outcome.answer_s = now
                elif isinstance(event, ToolDelta):
                    now = clock() - begin
                    arrivals.append(now)
                    if outcome.answer_s is None:
                        outcome.answer_s = now
                elif isinstance(event, Started):
                    outcome.prompt_tokens, outcome.cached_tokens = event.prompt_tokens, event.cached_tokens
                elif isinstance(event, Done):
                    usage = event.usage
                    outcome.prompt_tokens, outcome.cached_tokens = usage.prompt_tokens, usage.cached_tokens
                    num_tokens, outcome.reasoning_tokens = usage.completion_tokens, usage.reasoning_tokens
                    times = event.timings
                    outcome.queue_s, outcome.prefill_s = times.queue_s, times.prefill_s
                    outcome.decode_s = times.decode_s
                    outcome.failure = None
                elif isinstance(event, Failed):
                    raise event.error
        finally:
            outcome.output_tokens = num_tokens or len(arrivals)
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
