from __future__ import annotations

import math

import pytest

from temper.engines.fake import FakeEngine
from temper.engines.openai import Endpoint, OpenAIEngine
from temper.errors import Invalid, Unsupported
from temper.measure.quality.perplexity import WINDOW, corpus, logprobs, perplexity
from temper.profile import schema
from tests.engines.serving import serving
from tests.measure.virtual import PacedEngine


async def test_echo_and_http_give_the_same_figure():
    inner = FakeEngine(schema.FakeEngine(script="words"))
    async with serving(inner) as url:
        remote = OpenAIEngine(schema.OpenAIEngine(), endpoint=Endpoint(url))
        await remote.start()
        tokens = (await inner.tokenize(corpus()))[:40]
        assert await logprobs(remote, tokens) == pytest.approx(await logprobs(inner, tokens))
        assert await perplexity(remote, corpus()) == pytest.approx(await perplexity(inner, corpus()))
        await remote.stop()


async def test_it_is_the_exponential_of_the_mean_loss_over_second_halves():
    engine = FakeEngine(schema.FakeEngine(script="words"))
    await engine.start()
    tokens = await engine.tokenize(corpus())
    losses = []
    for begin in range(0, len(tokens) - WINDOW + 1, WINDOW):
        losses += [-value for value in (await logprobs(engine, tokens[begin : begin + WINDOW]))[WINDOW // 2 :]]
    assert await perplexity(engine, corpus()) == pytest.approx(math.exp(sum(losses) / len(losses)))


async def test_what_cannot_be_scored_says_so():
    with pytest.raises(Unsupported, match="does not tokenize"):
        await perplexity(PacedEngine(0, 0), corpus())
    engine = FakeEngine(schema.FakeEngine())
    await engine.start()
    with pytest.raises(Invalid, match="at least 512 tokens"):
        await perplexity(engine, "too short")
