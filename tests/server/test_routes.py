"""Endpoints beside generation: tokens, embeddings, health, metrics."""

from __future__ import annotations

import asyncio
import math

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from temper.engines.base import Capabilities, Health
from tests.server.conftest import Running, fake, running

ASK = [{"role": "user", "content": "x"}]


async def test_tokens_there_and_back(server: Running):
    async with server.http as http:
        text = "Grüße, 世界 🙂"
        found = (await http.post("/tokenize", json={"model": "echo", "prompt": text, "return_token_strs": True})).json()
        assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
        assert found["max_model_len"] == 8192
        back = (await http.post("/detokenize", json={"model": "echo", "tokens": found["tokens"]})).json()
        assert back == {"prompt": text}
        chat = (await http.post("/tokenize", json={"messages": ASK})).json()
        assert chat["count"] > 0
        assert chat["token_strs"] is None
        unknown = await http.post("/detokenize", json={"tokens": [7]})
        assert unknown.status_code == 400


async def test_embeddings(client: openai.AsyncOpenAI):
    answer = await client.embeddings.create(model="echo", input=["one", "two"])
    assert [entry.index for entry in answer.data] == [0, 1]
    assert math.isclose(sum(x * x for x in answer.data[0].embedding), 1, rel_tol=1e-5)
    plain = await client.embeddings.create(model="echo", input="one", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(answer.data[0].embedding)
    assert answer.usage.prompt_tokens == 2


async def test_embeddings_are_refused_where_none_are_made(monkeypatch: pytest.MonkeyPatch):
    engine = fake()
    monkeypatch.setattr(engine, "capabilities", lambda: Capabilities(model="fake"))
    async with running(engine) as server, server.http as http:
        answer = await http.post("/v1/embeddings", json={"input": "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported"
    assert "embed" in answer.json()["error"]["message"]


async def test_ready_reflects_the_engines(monkeypatch: pytest.MonkeyPatch):
    good, bad = fake(), fake()
    async with running({"good": good, "bad": bad}) as server, server.http as http:
        assert (await http.get("/ready")).json()["status"] == "ready"
        monkeypatch.setattr(bad, "health", lambda: Health(alive=True, ready=False, reason="no step completes"))
        red = await http.get("/ready")
        assert red.status_code == 503
        assert red.json()["engines"]["bad"]["reason"] == "no step completes"
        assert (await http.get("/health")).status_code == 200


async def test_a_crash_is_red_then_green_and_the_next_request_works(server: Running):
    async with server.http as http:
        await http.post("/v1/chat/completions", json={"model": "crash", "messages": ASK, "stream": True})
        assert (await http.get("/ready")).status_code == 503
        refused = await http.post("/v1/chat/completions", json={"model": "crash", "messages": ASK})
        assert refused.status_code == 503
        for _ in range(100):
            await asyncio.sleep(0.02)
            if (await http.get("/ready")).status_code == 200:
                break
        again = await http.post("/v1/chat/completions", json={"model": "crash", "messages": ASK, "max_tokens": 2})
        assert again.status_code == 200


async def test_metrics_have_vllms_names_and_count(server: Running, client: openai.AsyncOpenAI):
    await client.chat.completions.create(model="count", messages=ASK, max_tokens=5)
    async for _ in await client.chat.completions.create(model="count", messages=ASK, max_tokens=5, stream=True):
        pass
    async with server.http as http:
        answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {
        (sample.name, sample.labels.get("finished_reason", sample.labels.get("le"))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.labels.get("model_name") == "count"
    }
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert found[f"vllm:{gauge}", None] == 0
    assert found["vllm:generation_tokens_total", None] == 10
    assert found["vllm:prompt_tokens_total", None] > 0
    assert found["vllm:num_preemptions_total", None] == 0
    assert found["vllm:prefix_cache_queries_total", None] > found["vllm:prefix_cache_hits_total", None]
    assert found["vllm:request_success_total", "length"] == 2
    for histogram, count in {
        "time_to_first_token_seconds": 2,
        "inter_token_latency_seconds": 8,
        "e2e_request_latency_seconds": 2,
        "request_queue_time_seconds": 2,
        "request_prefill_time_seconds": 2,
        "request_decode_time_seconds": 2,
        "request_prompt_tokens": 2,
        "request_generation_tokens": 2,
    }.items():
        assert found[f"vllm:{histogram}_count", None] == count, histogram
        assert found[f"vllm:{histogram}_bucket", "+Inf"] == count
    assert found["vllm:request_generation_tokens_sum", None] == 10
    assert found["temper:kv_peak_bytes", None] >= 0


async def test_live_figures_follow(server: Running, client: openai.AsyncOpenAI):
    await client.chat.completions.create(model="count", messages=ASK, max_tokens=200)
    found = server.state.telemetry.live.snapshot()
    assert found["tokens_per_s"] > 0
    assert found["completed_total"] == 1
    assert found["inter_token_ms"]["count"] == 199
    assert found["inter_token_ms"]["p50"] <= found["inter_token_ms"]["p99"]
    assert found["ttft_ms"] == {"count": 1, "p50": None, "p90": None, "p99": None}
    assert found["running"] == found["waiting"] == 0
