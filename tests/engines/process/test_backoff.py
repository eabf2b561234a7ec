"""Pauses between restarts."""

from __future__ import annotations

from temper.engines.process.backoff import Backoff


def test_pauses_double_up_to_the_longest():
    backoff = Backoff(0.5, 100, longest_s=3.0)
    assert [backoff.pause_s(0.0) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_row_ends():
    backoff = Backoff(1.0, 2)
    assert [backoff.pause_s(1.0) for _ in range(3)] == [1.0, 2.0, None]


def test_a_long_life_begins_a_new_row():
    backoff = Backoff(1.0, 2, stable_s=100.0)
    assert [backoff.pause_s(lived_s) for lived_s in (0.0, 0.0, 150.0, 0.0, 0.0)] == [1.0, 2.0, 1.0, 2.0, None]


def test_none_is_allowed_at_all():
    assert Backoff(1.0, 0).pause_s(1000.0) is None


def test_many_restarts_are_no_overflow():
    backoff = Backoff(1.0, 10**6)
    assert [backoff.pause_s(0.0) for _ in range(5000)][-1] == 60.0
