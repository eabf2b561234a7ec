"""The hard budget of the key/value cache: which blocks are free, and how many hold each one.

It counts blocks and nothing else: what a block holds, and whether the prefix cache would like to
keep it, is known to `prefix.py`. The executor owns the memory; block ids index its pages.
"""

from __future__ import annotations


class BlockPool:
    """`num_blocks` blocks with reference counts. A block is free, idle (kept, unreferenced) or held."""

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError(f"a pool needs at least 1 block, got {num_blocks}; raise kv.budget_bytes")
        self.num_blocks = num_blocks
        self._refs = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self.num_held = 0
        """Blocks with at least one reference."""
        self.peak_used = 0
        """Most blocks ever held or kept at one time."""

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds and nobody keeps."""
        return len(self._free)

    def refs(self, block: int) -> int:
        """References to `block`."""
        return self._refs[block]

    def take(self) -> int:
        """A free block with one reference. Raises IndexError when none is free: callers make room first."""
        block = self._free.pop()
        self._refs[block] = 1
        self.num_held += 1
        self.peak_used = max(self.peak_used, self.num_blocks - len(self._free))
        return block

    def retain(self, block: int) -> None:
        """One more reference to a held or idle block."""
        if self._refs[block] == 0:
            self.num_held += 1
        self._refs[block] += 1

    def drop(self, block: int) -> bool:
        """One reference fewer. True when it was the last: the caller then keeps the block or gives it back."""
        left = self._refs[block] - 1
        if left < 0:
            raise AssertionError(f"block {block} was released more often than it was held")
        self._refs[block] = left
        if left == 0:
            self.num_held -= 1
        return left == 0

    def give_back(self, block: int) -> None:
        """Make an unreferenced block free."""
        if self._refs[block]:
            raise AssertionError(f"block {block} is still held {self._refs[block]} times")
        self._free.append(block)
