from __future__ import annotations

import asyncio
import time

from temper.measure.saturation import Watch, judge, merged


def test_a_generator_with_room_is_no_bottleneck():
    found = judge(0.3, 5.0, 2.0)
    assert not found.is_bottleneck
    assert found.reasons == ()


def test_each_limit_is_a_reason_of_its_own():
    assert "95% of a core" in judge(0.95, 1.0, None).reasons[0]
    assert "woke 40 ms late" in judge(0.1, 40.0, None).reasons[0]
    assert "sent 55 ms late" in judge(0.1, 1.0, 55.0).reasons[0]
    assert len(judge(0.95, 40.0, 55.0).reasons) == 3


def test_the_busiest_of_several_counts():
    found = merged([judge(0.2, 30.0, None), judge(0.9, 1.0, 3.0)])
    assert (found.cpu_share, found.loop_lag_p99_ms, found.send_late_p99_ms) == (0.9, 30.0, 3.0)
    assert len(found.reasons) == 2


async def test_a_loop_that_is_held_up_is_noticed():
    async with Watch(time.monotonic) as watch:
        for _ in range(4):
            end = time.thread_time() + 0.08
            while time.thread_time() < end:  # nothing else runs on this loop meanwhile
                pass
            await asyncio.sleep(0.011)
    found = watch.saturation([])
    assert found.loop_lag_p99_ms > 50
    assert found.is_bottleneck
    assert found.cpu_share > 0.2
