"""The prefix cache: full blocks of earlier sequences, found again by what they hold.

A block's key is a hash of its parent's key, its tokens and a salt (an adapter's version, say), so a
key stands for everything from the first token on. Only full blocks are kept; a kept block that no
sequence holds is idle, and idle blocks leave oldest first, deepest first within one sequence. This
module hands out and takes back all blocks, because making room is the same act as forgetting.
It does not know sequences or requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from temper.engines.native.kv.pool import BlockPool

_KEY_BYTES = 16


def extend_keys(keys: list[bytes], tokens: NDArray[np.int32], num_tokens: int, block_tokens: int, salt: bytes) -> None:
    """Append to `keys` the keys of all full blocks among the first `num_tokens` of `tokens`."""
    for index in range(len(keys), num_tokens // block_tokens):
        hasher = blake2b(keys[-1] if keys else salt, digest_size=_KEY_BYTES)
        hasher.update(tokens[index * block_tokens : (index + 1) * block_tokens].tobytes())
        keys.append(hasher.digest())


class PrefixCache:
    """Hands out the blocks of a pool and remembers full ones. Not thread-safe: the step thread owns it."""

    def __init__(self, pool: BlockPool, *, enabled: bool = True, evict_above: float = 0.9) -> None:
        self.pool = pool
        self._block_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self.enabled = enabled
        self.evict_above = evict_above

    def configure(self, *, enabled: bool, evict_above: float) -> None:
        """Take over new settings; switching off forgets everything that no sequence holds."""
        self.enabled = enabled
        self.evict_above = evict_above
        if not enabled:
            self.clear()
        self._trim()

    @property
    def num_available(self) -> int:
        """Blocks that can be handed out: free ones and idle ones."""
        return self.pool.num_free + len(self._idle)

    @property
    def num_idle(self) -> int:
        """Blocks kept by this cache alone."""
        return len(self._idle)

    def lookup(self, keys: Sequence[bytes]) -> list[int]:
        """The blocks of the longest known beginning of `keys`. They are not held until `retain`."""
        blocks: list[int] = []
        if self.enabled:
            for key in keys:
                block = self._block_of.get(key)
                if block is None:
                    break
                blocks.append(block)
        return blocks

    def count_idle(self, blocks: Sequence[int]) -> int:
        """How many of `blocks` are idle, and so would leave `num_available` when retained."""
        return sum(1 for block in blocks if block in self._idle)

    def retain(self, blocks: Sequence[int]) -> None:
        """Hold blocks that `lookup` found or another sequence holds."""
        for block in blocks:
            self._idle.pop(block, None)
            self.pool.retain(block)

    def allocate(self, count: int) -> list[int] | None:
        """`count` new blocks, each held once; None, and nothing changed, when there are not so many."""
        if count > self.num_available:
            return None
        while self.pool.num_free < count:
            self._evict_oldest()
        blocks = [self.pool.take() for _ in range(count)]
        self._trim()
        return blocks

    def remember(self, key: bytes, block: int) -> None:
        """Note that the held, now full `block` stands for `key`. An equal block known already stays the one."""
        if self.enabled and key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key

    def release(self, blocks: Sequence[int]) -> None:
        """Give up one hold on each of a sequence's blocks, given first to last."""
        for block in reversed(blocks):  # the deepest block becomes the oldest: a chain is eaten from its end
            if self.pool.drop(block):
                if block in self._key_of:
                    self._idle[block] = None
                else:
                    self.pool.give_back(block)
        self._trim()

    def clear(self) -> None:
        """Forget every key. Held blocks stay held, and are free once released."""
        while self._idle:
            self._evict_oldest()
        self._block_of.clear()
        self._key_of.clear()

    def _trim(self) -> None:
        limit = int(self.evict_above * self.pool.num_blocks)
        while self._idle and self.pool.num_blocks - self.pool.num_free > limit:
            self._evict_oldest()

    def _evict_oldest(self) -> None:
        block, _ = self._idle.popitem(last=False)
        del self._block_of[self._key_of.pop(block)]
        self.pool.give_back(block)
