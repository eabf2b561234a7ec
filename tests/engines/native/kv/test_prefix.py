from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from temper.engines.native.kv.pool import BlockPool
from temper.engines.native.kv.prefix import PrefixCache, extend_keys


def keys_of(tokens: list[int], salt: bytes = b"", block_tokens: int = 4) -> list[bytes]:
    keys: list[bytes] = []
    extend_keys(keys, np.array(tokens, dtype=np.int32), len(tokens), block_tokens, salt)
    return keys


def test_a_key_stands_for_all_before_it_and_the_salt():
    assert len(keys_of([1, 2, 3, 4, 5, 6, 7])) == 1
    one, two = keys_of([1, 2, 3, 4, 5, 6, 7, 8])
    assert one == keys_of([1, 2, 3, 4])[0]
    assert two != keys_of([9, 2, 3, 4, 5, 6, 7, 8])[1]
    assert two != keys_of([1, 2, 3, 4, 5, 6, 7, 8], salt=b"adapter 2")[1]
    grown = keys_of([1, 2, 3, 4])
    extend_keys(grown, np.array([1, 2, 3, 4, 5, 6, 7, 8], dtype=np.int32), 8, 4, b"")
    assert grown == [one, two]


def filled(num_blocks: int = 10, evict_above: float = 1.0) -> PrefixCache:
    return PrefixCache(BlockPool(num_blocks), evict_above=evict_above)


def keep(cache: PrefixCache, tokens: list[int]) -> list[int]:
    """A sequence computes `tokens` and ends."""
    keys = keys_of(tokens)
    blocks = cache.allocate(len(keys))
    assert blocks is not None
    for key, block in zip(keys, blocks, strict=True):
        cache.remember(key, block)
    cache.release(blocks)
    return blocks


def test_found_again_and_held_again():
    cache = filled()
    blocks = keep(cache, list(range(12)))
    assert (cache.num_idle, cache.num_available, cache.pool.num_held) == (3, 10, 0)
    found = cache.lookup(keys_of([*range(8), 99, 99, 99, 99]))
    assert found == blocks[:2]
    assert cache.count_idle(found) == 2
    cache.retain(found)
    assert (cache.num_idle, cache.pool.num_held) == (1, 2)
    cache.release(found)
    assert cache.pool.num_held == 0


def test_the_oldest_leaves_first_and_its_end_before_its_beginning():
    cache = filled(4)
    old, new = list(range(8)), list(range(100, 108))
    keep(cache, old)
    keep(cache, new)
    taken = cache.allocate(1)
    assert taken is not None
    assert len(cache.lookup(keys_of(old))) == 1
    assert len(cache.lookup(keys_of(new))) == 2
    assert cache.allocate(4) is None
    assert len(cache.allocate(3) or ()) == 3
    assert cache.lookup(keys_of(new)) == []


def test_eviction_begins_at_its_mark():
    cache = filled(10, evict_above=0.5)
    for start in range(0, 400, 4):
        keep(cache, list(range(start, start + 4)))
    assert cache.num_idle == 5
    cache.configure(enabled=True, evict_above=0.2)
    assert cache.num_idle == 2
    cache.configure(enabled=False, evict_above=0.2)
    assert cache.num_idle == 0
    assert cache.pool.num_free == 10
    keep(cache, [1, 2, 3, 4])
    assert cache.num_idle == 0


class Blocks(RuleBasedStateMachine):
    """Any order of sequences coming and going keeps the books right."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = filled(12, 0.7)
        self.sequences: list[list[int]] = []

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=24), keep_keys=st.booleans())
    def begin(self, tokens: list[int], keep_keys: bool) -> None:
        keys = keys_of(tokens)
        found = self.cache.lookup(keys)
        need = -(-len(tokens) // 4) - len(found)
        if need > self.cache.num_available - self.cache.count_idle(found):
            return
        self.cache.retain(found)
        blocks = self.cache.allocate(need)
        assert blocks is not None
        blocks = found + blocks
        assert len(set(blocks)) == len(blocks)
        if keep_keys:
            for key, block in zip(keys, blocks, strict=False):
                self.cache.remember(key, block)
        self.sequences.append(blocks)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.sequences) - 1))
        self.cache.release(self.sequences.pop(at))

    @rule()
    def forget(self) -> None:
        self.cache.clear()

    @invariant()
    def books(self) -> None:
        pool = self.cache.pool
        held = {block for blocks in self.sequences for block in blocks}
        assert pool.num_held == len(held)
        assert pool.num_free + self.cache.num_idle + len(held) == pool.num_blocks
        for block in held:
            assert pool.refs(block) == sum(blocks.count(block) for blocks in self.sequences)


Blocks.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBlocks = Blocks.TestCase
