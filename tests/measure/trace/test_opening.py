"""Servers that are traced over HTTP: with their admin key, without it, and those that have no such call."""

from __future__ import annotations

import pytest

from temper.errors import TemperError, Unsupported
from temper.measure.trace import opening, run
from temper.measure.workload.options import Load
from temper.server import ServerSettings
from tests.engines.native.fakes import make_engine
from tests.server.conftest import running

VARIANTS = Load(requests=2, warmup=0, input_tokens=10, output_tokens=4).variants()


async def test_with_the_admin_key_all_is_told():
    engine, _ = make_engine(max_step_tokens=256)
    async with running({"m": engine}, ServerSettings(admin_keys=("secret",))) as server:
        found = await run.trace(opening.at_url(server.url, None, None, "secret"), VARIANTS, lambda text: None)
    (one,) = found["runs"]
    assert one["steps"]["count"] == 8
    assert one["stages"][0]["stage"] == "HTTP"
    assert one["stages"][0]["seconds"] > 0
    assert one["request_ms"]["around"] is not None


async def test_without_it_only_what_answers_tell():
    engine, _ = make_engine(max_step_tokens=256)
    async with running({"m": engine}) as server:
        found = await run.trace(opening.at_url(server.url, None, None, None), VARIANTS, lambda text: None)
    (one,) = found["runs"]
    assert one["stages"] == []
    assert one["request_ms"]["decode"] > 0
    assert "TEMPER_ADMIN_KEY" in one["not_told"][0]["reason"]


async def test_a_wrong_key_is_an_error():
    engine, _ = make_engine(max_step_tokens=256)
    async with running({"m": engine}, ServerSettings(admin_keys=("secret",))) as server:
        with pytest.raises(TemperError, match="refuses to be traced: the key is not known here"):
            await run.trace(opening.at_url(server.url, None, None, "guess"), VARIANTS, lambda text: None)


async def test_other_servers_have_no_such_call():
    switch_error = opening._refusal(404, {})
    assert isinstance(switch_error, Unsupported)
    assert "older Temper, or none" in str(switch_error)
