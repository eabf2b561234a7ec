from __future__ import annotations

import pytest

from temper.engines.native.kv.pool import BlockPool


def test_counts_follow_takes_and_drops():
    pool = BlockPool(3)
    a, b = pool.take(), pool.take()
    assert (pool.num_held, pool.num_free, pool.peak_used) == (2, 1, 2)
    pool.retain(a)
    assert not pool.drop(a)
    assert pool.drop(a)
    assert pool.refs(a) == 0
    pool.give_back(a)
    assert (pool.num_held, pool.num_free) == (1, 2)
    assert pool.drop(b)
    pool.give_back(b)
    assert sorted(pool.take() for _ in range(3)) == [0, 1, 2]
    with pytest.raises(IndexError):
        pool.take()
    assert pool.peak_used == 3


def test_misuse_is_loud():
    with pytest.raises(ValueError, match="at least 1 block"):
        BlockPool(0)
    pool = BlockPool(1)
    block = pool.take()
    with pytest.raises(AssertionError):
        pool.give_back(block)
    pool.drop(block)
    with pytest.raises(AssertionError):
        pool.drop(block)
