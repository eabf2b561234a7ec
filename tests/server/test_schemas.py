"""Bodies that break a rule: each gets a 4xx that names the field. A property over the schemas, not a list."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.errors import Invalid
from temper.server import create_app, schemas
from tests.server.conftest import Running, fake

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
COMPLETION = {"model": "echo", "prompt": "x", "max_tokens": 4}
ENDPOINTS = {
    "/v1/chat/completions": (schemas.ChatBody, CHAT),
    "/v1/completions": (schemas.CompletionBody, COMPLETION),
    "/v1/embeddings": (schemas.EmbeddingsBody, {"model": "echo", "input": "x"}),
    "/tokenize": (schemas.TokenizeBody, {"model": "echo", "prompt": "x"}),
    "/detokenize": (schemas.DetokenizeBody, {"model": "echo", "tokens": [353]}),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HOSTILE = st.one_of(
    JSON,
    st.sampled_from(
        [10**30, -(10**30), 2**31, 2**63, 1e308, -1e308, 5e-324, "NaN", "\0", "🙂" * 50, [], {}, [[]], [{}]]
    ),
    st.integers().map(str),
    st.just(None).map(lambda _: json.loads("[" * 60 + "]" * 60)),
)


@pytest.fixture(scope="module")
def post():
    """POST to an app in this process, without a socket between: fast enough for many examples."""
    engine = fake("echo")
    app = create_app({"echo": engine})
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)

        async def send(path: str, body: dict[str, Any]) -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                return await http.post(path, json=body)

        yield lambda path, body: runner.run(send(path, body))


@pytest.mark.parametrize("path", ENDPOINTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_value_in_any_field_is_taken_or_refused_by_name(path: str, data: st.DataObject, post: Any):
    kind, good = ENDPOINTS[path]
    field = data.draw(st.sampled_from(sorted(kind.model_fields)) | st.text(min_size=1, max_size=12), label="field")
    value = data.draw(HOSTILE, label="value")
    answer = post(path, good | {field: value})
    if answer.status_code == 200:
        assert field in kind.model_fields
        return
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert error["message"]
    named = str(error["param"])
    allowed = {field, *related(field)}
    assert any(named == one or named.startswith(f"{one}.") for one in allowed), f"{field}={value!r}: {error}"


def related(field: str) -> set[str]:
    """Fields that a rule over several may name instead."""
    pairs = [
        {"logprobs", "top_logprobs"},
        {"stream", "stream_options"},
        {"max_tokens", "max_completion_tokens", "messages", "prompt"},
        {"thinking", "reasoning_effort", "chat_template_kwargs"},
        {"tools", "parallel_tool_calls"},
        {"best_of", "n"},
        {"prompt", "messages"},
        {"prompt", "tokens"},
    ]
    return set().union(*(pair for pair in pairs if field in pair))


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_any_json_as_a_body_breaks_nothing(value: Any):
    if not isinstance(value, dict):
        return
    for kind, _ in ENDPOINTS.values():
        with contextlib.suppress(Invalid):
            schemas.check(kind, value)


def test_wrong_types_are_not_bent():
    for field, value in [
        ("max_tokens", "5"),
        ("max_tokens", 5.0),
        ("max_tokens", True),
        ("temperature", "0.5"),
        ("stream", "true"),
        ("stream", 1),
        ("seed", 1.5),
        ("model", 5),
        ("temperature", math.nan),
        ("temperature", math.inf),
    ]:
        with pytest.raises(Invalid) as caught:
            schemas.check(schemas.ChatBody, CHAT | {field: value})
        assert caught.value.param == field


def test_an_integer_is_a_fine_float():
    assert schemas.check(schemas.ChatBody, CHAT | {"temperature": 1}).temperature == 1.0


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0"),
        ({"stop": [1]}, "stop.0"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"thinking": {"type": "maybe"}}, "thinking.type"),
        ({"temperature_schedule": {"kind": "list"}}, "temperature_schedule"),
        ({"tools": [{"type": "function", "function": {"name": "no blanks"}}]}, "tools.0.function.name"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_completion_tokens": 9}, "max_tokens"),
        ({"tempratures": 1}, "tempratures"),
    ],
)
def test_the_field_is_named(change: dict[str, Any], param: str):
    with pytest.raises(Invalid) as caught:
        schemas.check(schemas.ChatBody, CHAT | change)
    assert caught.value.param == param


def test_a_misspelt_field_gets_its_nearest_name():
    with pytest.raises(Invalid, match="did you mean 'temperature'"):
        schemas.check(schemas.ChatBody, CHAT | {"temprature": 1})


def test_a_missing_field_is_named():
    with pytest.raises(Invalid) as caught:
        schemas.check(schemas.ChatBody, {})
    assert caught.value.param == "messages"


def test_every_field_is_described():
    """/openapi.json tells all of it, and that nothing else is taken."""
    for kind in schemas.BODIES:
        described = kind.model_json_schema()
        assert described["additionalProperties"] is False
        for name, field in kind.model_fields.items():
            assert (field.alias or name) in described["properties"]


async def test_openapi_describes_the_bodies(server: Running):
    async with server.http as http:
        described = (await http.get("/openapi.json")).json()
    body = described["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatBody"}
    assert described["components"]["schemas"]["ChatBody"]["additionalProperties"] is False
    text = json.dumps(described)
    for name in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in described["components"]["schemas"]
