from __future__ import annotations

import pytest

from temper.engines.fake import FakeEngine
from temper.engines.openai import Endpoint
from temper.errors import EngineFailure
from temper.measure.processes import drive_in_processes
from temper.measure.workload.schema import validate
from temper.measure.workload.text import Wording
from temper.profile import schema
from tests.engines.serving import serving

CONFIG = schema.OpenAIEngine(retries=0, health_every_s=None)
CONTENT = {"kind": "synthetic", "output_tokens": {"kind": "fixed", "tokens": 4}}


def workload(**arrivals):
    return validate({"requests": 21, "content": CONTENT, "arrivals": arrivals})


async def test_shares_add_up_to_the_whole():
    async with serving(FakeEngine(schema.FakeEngine(script="words"))) as url:
        run = await drive_in_processes(
            CONFIG, Endpoint(url), workload(kind="closed", concurrency=3), Wording(), first=5, num_processes=2
        )
    assert sorted(outcome.name for outcome in run.outcomes) == sorted(f"bench-0-{i}" for i in range(5, 26))
    assert all(outcome.failure is None and outcome.output_tokens == 4 for outcome in run.outcomes)
    ends = [outcome.end_s for outcome in run.outcomes]
    assert ends == sorted(ends)
    assert min(outcome.sent_s for outcome in run.outcomes) >= 0
    assert run.saturation.cpu_share > 0


async def test_a_server_that_is_not_there_is_an_error():
    nobody = Endpoint("http://127.0.0.1:9")
    with pytest.raises(EngineFailure, match="no connection"):
        await drive_in_processes(CONFIG, nobody, workload(kind="open", rate=5), Wording(), first=0, num_processes=2)
