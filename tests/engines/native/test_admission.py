from __future__ import annotations

import pytest

from temper.engines.native.admission import Admission
from temper.errors import QueueFull


def test_places_that_are_free_do_not_count_as_a_line():
    door = Admission(max_waiting=1, max_sequences=2)
    tickets = [door.enter(1) for _ in range(3)]
    with pytest.raises(QueueFull, match="3 requests wait already; the limit is 1"):
        door.enter(1)
    door.started(tickets[0])
    with pytest.raises(QueueFull):
        door.enter(1)
    door.left(tickets[0])
    door.enter(1)
    assert (door.num_waiting, door.num_running) == (3, 0)


def test_samples_weigh():
    door = Admission(max_waiting=0, max_sequences=4)
    first = door.enter(3)
    door.started(first)
    door.enter(1)
    with pytest.raises(QueueFull) as caught:
        door.enter(1)
    assert caught.value.retryable
    assert 1 <= (caught.value.retry_after_s or 0) <= 60


def test_leaving_twice_or_early_is_harmless():
    door = Admission(0, 1)
    ticket = door.enter(1)
    door.left(ticket)
    door.left(ticket)
    door.started(ticket)
    assert (door.num_waiting, door.num_running) == (0, 0)


def test_the_wait_grows_with_the_line_and_the_pace(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("temper.engines.native.admission.time.monotonic", lambda: now[0])
    door = Admission(100, 1)
    assert door.retry_after_s == 1.0
    for _ in range(3):
        ticket = door.enter(1)
        door.started(ticket)
        now[0] += 2.0
        door.left(ticket)
    assert door.retry_after_s == 2.0
    for _ in range(40):
        door.enter(1)
    assert door.retry_after_s == 20.0
