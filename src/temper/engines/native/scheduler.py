"""Continuous batching: which sequences run in the next step, with how many tokens each.

One step is one ragged batch of decodes and prefill chunks within `max_step_tokens`, `max_sequences`
and `max_logit_rows`. The rules:

- Order is (priority, arrival). Every `FAIR_EVERY`-th admission goes to the request that waits longest,
  whatever its priority, and it then outranks all: nobody starves.
- Decodes come first, so a long prompt never stops them; a quarter of the step is kept for prefill
  while there is any, so decodes never stop a prompt. Each prompt takes at most half of what is left
  while others want the rest, so short prompts overtake long ones.
- A sequence holds the blocks of its whole prompt from admission on. When a decode finds no block,
  the lowest-ranked running sequence gives up its blocks and waits to be computed again.
- Samples of one request wait for its prompt and then start from the prompt's cached blocks.

It knows block counts and token counts, no text, no model, no clock.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass

from temper.engines.native.kv.prefix import PrefixCache, extend_keys
from temper.engines.native.sequence import Rank, Sequence

FAIR_EVERY = 8
_MOST_PREFILLING = 8
"""Prompts in progress at one time: more would only hold blocks without being computed."""


def _rank(sequence: Sequence) -> Rank:
    return sequence.rank


@dataclass(slots=True, kw_only=True)
class StepLimits:
    """What one step may hold."""

    max_sequences: int
    max_step_tokens: int
    max_logit_rows: int


class Scheduler:
    """Owns the waiting line, the running set and their blocks. Not thread-safe: the step thread owns it."""

    def __init__(self, cache: PrefixCache, block_tokens: int, limits: StepLimits) -> None:
        self.cache = cache
        self.limits = limits
        self._block_tokens = block_tokens
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._lanes = list(range(limits.max_sequences - 1, -1, -1))
        self._num_admitted = 0
        self._step = 0
        self._preempting = False
        self.prefix_queries_total = 0
        self.prefix_hits_total = 0
        self.preemptions_total = 0

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences in line, preempted ones included."""
        return len(self._waiting)

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens` tokens."""
        return -(-num_tokens // self._block_tokens)

    def add(self, sequences: Iterable[Sequence]) -> None:
        """Put sequences in line."""
        for sequence in sequences:
            insort(self._waiting, sequence, key=_rank)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is; its blocks and lane are free at once."""
        if sequence.is_running:
            self._running.remove(sequence)
            self._release(sequence)
        else:
            self._waiting = [other for other in self._waiting if other is not sequence]

    def schedule(self) -> list[Sequence]:
        """The sequences of the next step, `num_new` ≥ 1 tokens each; empty when there is nothing to do."""
        self._step += 1
        self._preempting = False
        limits = self.limits
        decoding = [s for s in self._running if not self._prefills(s)]
        num_prefilling = len(self._running) - len(decoding)
        kept = limits.max_step_tokens // 4 if num_prefilling or self._waiting else 0
        if len(decoding) > (most := limits.max_step_tokens - kept):
            decoding = sorted(decoding, key=lambda s: s.last_step)[:most]
            decoding.sort(key=_rank)
        chosen = []
        for sequence in decoding:
            # A better-ranked one may have taken its blocks a moment ago.
            if sequence.is_running and self._grow(sequence):
                sequence.num_new = 1
                chosen.append(sequence)
        tokens = limits.max_step_tokens - len(chosen)
        rows = limits.max_logit_rows - len(chosen)
        if not self._preempting:
            self._admit(tokens)
        chosen += self._share([s for s in self._running if not s.num_new and self._has_room(s)], tokens, rows)
        for sequence in chosen:
            sequence.last_step = self._step
        return chosen

    def commit(self, sequence: Sequence) -> None:
        """The step ran: the cache now holds the sequence's `num_new` tokens; full blocks become findable."""
        before = sequence.num_computed // self._block_tokens
        sequence.num_computed += sequence.num_new
        sequence.num_new = 0
        full = sequence.num_computed // self._block_tokens
        if full > before and self.cache.enabled:
            self._extend_keys(sequence, full * self._block_tokens)
            for index in range(before, full):
                self.cache.remember(sequence.keys[index], sequence.blocks[index])

    # -- inside --------------------------------------------------------------------------------------

    def _prefills(self, sequence: Sequence) -> bool:
        return sequence.num_tokens - sequence.num_computed > 1 or sequence.wants_rows

    def _has_room(self, sequence: Sequence) -> bool:
        return sequence.num_computed < len(sequence.blocks) * self._block_tokens

    def _grow(self, sequence: Sequence) -> bool:
        """Make sure that a decode has room for one more token; False when it was itself preempted."""
        if self._has_room(sequence):
            return True
        while (blocks := self.cache.allocate(1)) is None:
            victim = self._running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.blocks += blocks
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._preempting = True
        self.preemptions_total += 1
        sequence.job.num_preemptions += 1
        self._running.remove(sequence)
        self._release(sequence)
        insort(self._waiting, sequence, key=_rank)

    def _release(self, sequence: Sequence) -> None:
        self.cache.release(sequence.blocks)
        sequence.blocks = []
        sequence.num_computed = sequence.num_new = sequence.num_tabled = 0
        self._lanes.append(sequence.lane)
        sequence.lane = -1
        sequence.is_running = False

    def _admit(self, tokens: int) -> None:
        """Move sequences from the line into the running set while lanes, blocks and tokens last."""
        wanted = [s.num_tokens - s.num_computed for s in self._running if self._prefills(s)]
        num_prefilling, tokens = len(wanted), tokens - sum(wanted)
        while self._lanes and self._waiting and (tokens > 0 or num_prefilling < _MOST_PREFILLING):
            sequence = self._next_in_line()
            if sequence is None or not self._take_blocks(sequence):
                return
            self._waiting.remove(sequence)
            self._num_admitted += 1
            sequence.lane = self._lanes.pop()
            sequence.is_running = True
            insort(self._running, sequence, key=_rank)
            tokens -= sequence.num_tokens - sequence.num_computed
            num_prefilling += 1

    def _next_in_line(self) -> Sequence | None:
        ready = (s for s in self._waiting if s.index == 0 or s.job.prompt_done)
        first = next(ready, None)
        if first is None or self._num_admitted % FAIR_EVERY != FAIR_EVERY - 1:
            return first
        oldest = min((first, *ready), key=lambda s: s.rank[2:])
        if oldest is not first:
            oldest.rank = (0, *oldest.rank[1:])
            self._waiting.sort(key=_rank)
        return oldest

    def _take_blocks(self, sequence: Sequence) -> bool:
        """Blocks for all tokens so far, the longest known beginning from the cache; False when too few."""
        cached: list[int] = []
        # One token at least must be computed: its logits choose the next one. Rows need them all.
        if self.cache.enabled and not sequence.wants_rows:
            self._extend_keys(sequence, sequence.num_tokens)
            cached = self.cache.lookup(sequence.keys[: (sequence.num_tokens - 1) // self._block_tokens])
        need = self.blocks_for(sequence.num_tokens) - len(cached)
        # Running decodes will want a block each before long; alone, a sequence may take everything.
        spare = len(self._running)
        if need + spare > self.cache.num_available - self.cache.count_idle(cached):
            return False
        self.cache.retain(cached)
        blocks = self.cache.allocate(need)
        assert blocks is not None, "counted above"
        sequence.blocks = cached + blocks
        sequence.num_computed = len(cached) * self._block_tokens
        if sequence.slot < 0:  # not one that was preempted and comes back
            self.prefix_queries_total += sequence.num_tokens
            self.prefix_hits_total += sequence.num_computed
            if sequence.index == 0:
                sequence.job.cached_tokens = sequence.num_computed
        return True

    def _share(self, prefilling: list[Sequence], tokens: int, rows: int) -> list[Sequence]:
        """Cut the rest of the step into prefill chunks (a last token is one too), best-ranked first."""
        chosen = []
        wanted = sum(s.num_tokens - s.num_computed for s in prefilling)
        for sequence in prefilling:
            if tokens < 1 or rows < 1:
                break
            need = sequence.num_tokens - sequence.num_computed
            wanted -= need
            num_new = min(need, max((tokens + 1) // 2, tokens - wanted))
            if sequence.wants_rows:
                num_new = min(num_new, rows)
                rows -= num_new
            elif num_new == need:
                rows -= 1
            sequence.num_new = num_new
            tokens -= num_new
            chosen.append(sequence)
        return chosen

    def _extend_keys(self, sequence: Sequence, num_tokens: int) -> None:
        extend_keys(sequence.keys, sequence.tokens, num_tokens, self._block_tokens, sequence.job.salt)
