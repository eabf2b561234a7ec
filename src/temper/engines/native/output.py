"""From tokens to events, one sample at a time: text, channels, stops, budgets, endings.

Owns the order in which the pure parts act: decoder → thinking split → stop strings → delta. It
decides when a sample ends and which tokens must come next (a thinking budget's close tag). It knows
nothing of batches, caches or other samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from temper.engines.native.endings import EndingWatch, LoopGuard
from temper.engines.native.sampling import scheduled_temperature
from temper.engines.native.stops import StopMatcher
from temper.engines.native.thinking import Pieces, ThinkSplitter
from temper.types import Channel, Delta, Event, Finished, FinishReason, TemperatureSchedule, TokenLogprob

_PARAGRAPH = "\n\n"


class StreamDecoder(Protocol):
    """Token ids to text, piece by piece; holds back bytes that are no whole character yet."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that these tokens complete, often empty."""

    def flush(self) -> str:
        """What was still held; broken bytes become U+FFFD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRules:
    """What holds for every sample of one request."""

    decoder: Callable[[], StreamDecoder]
    max_tokens: int
    min_tokens: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    """End the sample: the request's and, unless it ignores them, the checkpoint's end tokens."""
    named_stop_ids: frozenset[int] = frozenset()
    """The request's own among them, reported in `Finished.matched`."""
    tags: tuple[str, str] | None = None
    """Open and close tag when thinking is to be split off."""
    thinking_opened: bool = False
    """The prompt ends inside the thinking."""
    budget: int | None = None
    close_ids: tuple[int, ...] = ()
    """The close tag in tokens, forced when the budget is used up."""
    graceful_from: int | None = None
    """Generated tokens from which on a complete sentence ends the answer."""
    guard: tuple[int, int] | None = None
    """Loop guard: passage length in tokens and repeats."""
    temperature: float = 1.0
    schedule: TemperatureSchedule | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    start: int
    end: int
    """Where the token's text lies, in characters of the whole output."""
    token_id: int
    logprob: TokenLogprob | None
    channel: Channel


class SampleOutput:
    """Turns one sample's tokens into events; `finished` says when it is over."""

    def __init__(self, index: int, rules: OutputRules) -> None:
        self._index = index
        self._rules = rules
        self._decoder = rules.decoder()
        self._split = ThinkSplitter(*rules.tags, opened=rules.thinking_opened) if rules.tags else None
        self._stops = StopMatcher(rules.stop_strings) if rules.stop_strings else None
        self._watch = EndingWatch() if rules.graceful_from is not None else None
        self._guard = LoopGuard(*rules.guard) if rules.guard else None
        self._held: deque[_Held] = deque()
        self._num_chars = 0
        self._paragraph_step = 0
        self._paragraph_tail = ""
        self._closing = False
        self.forced: deque[int] = deque()
        """Tokens that must come next, whatever the logits say."""
        self.finished = False
        self.num_generated = 0
        self.num_reasoning = 0
        if self._thinks and rules.budget == 0:
            self._close_thinking()

    @property
    def _thinks(self) -> bool:
        return self._split is not None and self._split.side == "reasoning"

    @property
    def temperature(self) -> float:
        """For the next token."""
        schedule = self._rules.schedule
        if schedule is None:
            return self._rules.temperature
        return scheduled_temperature(schedule, self.num_generated, self._paragraph_step)

    def push(self, tokens: NDArray[np.int32], end: int, logprob: TokenLogprob | None = None) -> list[Event]:
        """`tokens[end - 1]` was chosen; return the events that follow. Sets `finished`."""
        rules = self._rules
        token = int(tokens[end - 1])
        self.num_generated += 1
        if token in rules.stop_ids and not self.forced:
            if self._thinks:
                self.num_reasoning += 1
            return self._finish("stop", token if token in rules.named_stop_ids else None)
        if self.forced:
            self.forced.popleft()
        thought = self._thinks
        text = self._decoder.push((token,))
        if rules.schedule is not None:
            self._follow_paragraphs(text)
        if self._split is None and self._stops is None:
            events: list[Event] = [
                Delta(self._index, text, (token,), None if logprob is None else (logprob,), "answer")
            ]
            if self._watch is not None:
                self._watch.push(text)
        else:
            start = self._num_chars
            self._num_chars += len(text)
            before = start - self._num_undecided
            pieces: Pieces = self._split.push(text) if self._split else [("answer", text)]
            channel: Channel = "reasoning" if thought or self._thinks else "answer"
            self.num_reasoning += channel == "reasoning"
            self._held.append(_Held(start, self._num_chars, token, logprob, channel))
            events = self._publish(pieces, before)
            if self._stops is not None and self._stops.matched is not None:
                return self._ended(events, "stop", self._stops.matched)
        return self._judge(events, tokens, end, thought)

    def _judge(self, events: list[Event], tokens: NDArray[np.int32], end: int, thought: bool) -> list[Event]:
        """Limits, budget, loops, graceful ending, after a token that ended nothing by itself."""
        rules = self._rules
        if self.num_generated >= rules.max_tokens:
            return events + self._finish("length", None)
        thinks = self._thinks
        if thinks and not self._closing and rules.budget is not None and self.num_reasoning >= rules.budget:
            self._close_thinking()
        if self._guard is not None:
            if thought and not thinks:
                self._guard.reset()
            if self._guard.push(tokens, end) and not self._closing:
                if not thinks:
                    return events + self._finish("stop", "loop_guard")
                self._close_thinking()
        if (
            self._watch is not None
            and rules.graceful_from is not None
            and self.num_generated >= max(rules.graceful_from, rules.min_tokens)
            and not thinks
            and self._watch.complete
        ):
            return events + self._finish("length", "graceful_end")
        if not thinks:
            self._closing = False
        return events

    def _close_thinking(self) -> None:
        self._closing = True
        self.forced.extend(self._rules.close_ids)
        if self._guard is not None:
            self._guard.reset()

    @property
    def _num_undecided(self) -> int:
        return (self._split.num_held if self._split else 0) + (self._stops.num_held if self._stops else 0)

    def _publish(self, pieces: Pieces, before: int) -> list[Event]:
        """Deltas for decided pieces with the tokens they decide; `before` characters were decided earlier."""
        shown: dict[Channel, str] = {}
        num_shown = 0
        for side, text in pieces:
            if side == "answer" and self._stops is not None:
                if self._stops.matched is not None:
                    break
                # Below min_tokens nothing may stop the sample, so nothing needs holding back either.
                if self.num_generated >= self._rules.min_tokens:
                    text = self._stops.push(text)
            if text:
                shown[side] = shown.get(side, "") + text
                num_shown += len(text)
        stopped = self._stops is not None and self._stops.matched is not None
        cut = before + num_shown if stopped else self._num_chars - self._num_undecided
        return self._deltas(shown, cut, by_start=stopped)

    def _deltas(self, shown: dict[Channel, str], cut: int, *, by_start: bool) -> list[Event]:
        tokens: dict[Channel, list[_Held]] = {}
        held = self._held
        while held and (held[0].start < cut if by_start else held[0].end <= cut):
            tokens.setdefault(held[0].channel, []).append(held.popleft())
        events: list[Event] = []
        for channel in ("reasoning", "answer"):
            mine = tokens.get(channel, [])
            text = shown.get(channel, "")
            if self._watch is not None and channel == "answer":
                self._watch.push(text)
            if text or mine:
                with_logprobs = bool(mine) and mine[0].logprob is not None
                events.append(
                    Delta(
                        self._index,
                        text,
                        tuple(h.token_id for h in mine),
                        tuple(h.logprob for h in mine if h.logprob is not None) if with_logprobs else None,
                        channel,
                    )
                )
        return events

    def _finish(self, reason: FinishReason, matched: str | int | None) -> list[Event]:
        """Let go of all that was held, then end."""
        rest = self._decoder.flush()
        if self._split is None and self._stops is None:
            events: list[Event] = [Delta(self._index, rest)] if rest else []
            return self._ended(events, reason, matched)
        before = self._num_chars - self._num_undecided
        self._num_chars += len(rest)
        pieces: Pieces = [*self._split.push(rest), *self._split.flush()] if self._split else [("answer", rest)]
        events = self._publish(pieces, before)
        if self._stops is not None:
            if self._stops.matched is not None:
                return self._ended(events, "stop", self._stops.matched)
            if last := self._stops.flush():
                events += self._deltas({"answer": last}, self._num_chars, by_start=False)
        return self._ended(events, reason, matched)

    def _ended(self, events: list[Event], reason: FinishReason, matched: str | int | None) -> list[Event]:
        self.finished = True
        self.forced.clear()
        events.append(Finished(self._index, reason, matched))
        return events

    def _follow_paragraphs(self, text: str) -> None:
        joined = self._paragraph_tail + text
        self._paragraph_step = 0 if _PARAGRAPH in joined else self._paragraph_step + 1
        self._paragraph_tail = joined[-1:]
