"""Chat templates: rendered as transformers renders them, bounded, and honest about thinking."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from temper.errors import CheckpointError, Invalid, Unsupported
from temper.models.chat_template import CHATML, ChatTemplate, ends_thinking
from temper.models.checkpoint import Checkpoint
from temper.types import MediaPart, Message, ToolCall

R1_SPECIAL = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a <city> & region: 你好",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CONVERSATIONS = {
    "one": (Message("user", "What is 2+2?"),),
    "system": (Message("system", "Be brief."), Message("user", "Hi <b>&amp;</b> 'q' \"d\"")),
    "turns": (Message("user", "a"), Message("assistant", "b"), Message("user", "c\n\nd  ")),
    "thought": (
        Message("user", "2+2?"),
        Message("assistant", "<think>\ncount on fingers\n</think>\n\nIt is 4."),
        Message("user", "sure?"),
    ),
    "reasoning": (
        Message("user", "2+2?"),
        Message("assistant", "4.", reasoning_content="fingers"),
        Message("user", "sure?"),
    ),
}
TOOL_TURN = (
    Message("user", "weather in Bern?"),
    Message("assistant", None, tool_calls=(ToolCall("call_1", "weather", '{"city": "Bern"}'),)),
    Message("tool", "12 °C", tool_call_id="call_1"),
)
QWEN_TOOLS = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content or '' %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' ~ tool_call.name ~ '", "arguments": ' }}
            {%- if tool_call.arguments is string %}{{- tool_call.arguments }}
            {%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
"""In the manner of Qwen3's: tools, thinking kept or stripped by place, a switch for thinking."""


def by_transformers(source: str, special: Mapping[str, str], messages: tuple[Message, ...], **options: Any) -> str:
    """What transformers renders, given the plain dicts that its users write."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils", reason="needs the torch extra")
    plain = []
    for message in messages:
        shown: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning_content:
            shown["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            shown["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": options["arguments"]}}
                for c in message.tool_calls
            ]
        plain.append(shown)
    options.pop("arguments", None)
    rendered, _ = utils.render_jinja_template([plain], chat_template=source, **options, **special)
    return str(rendered[0])


@pytest.fixture
def r1_source(r1_metadata: Mapping[str, Any]) -> str:
    return str(r1_metadata["tokenizer.chat_template"])


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("generation_prompt", [True, False])
def test_r1_as_transformers_renders_it(r1_source: str, name: str, generation_prompt: bool) -> None:
    messages = CONVERSATIONS[name]
    found = ChatTemplate(r1_source, R1_SPECIAL).render(messages, add_generation_prompt=generation_prompt)
    assert found == by_transformers(r1_source, R1_SPECIAL, messages, add_generation_prompt=generation_prompt)
    assert found.startswith("<｜begin▁of▁sentence｜>")


def test_r1_strips_earlier_thinking(r1_source: str) -> None:
    found = ChatTemplate(r1_source, R1_SPECIAL).render(CONVERSATIONS["thought"])
    assert "fingers" not in found
    assert "It is 4." in found


def test_r1_wants_tool_arguments_as_text(r1_source: str) -> None:
    found = ChatTemplate(r1_source, R1_SPECIAL).render(TOOL_TURN)
    arguments = TOOL_TURN[1].tool_calls[0].arguments
    assert found == by_transformers(r1_source, R1_SPECIAL, TOOL_TURN, add_generation_prompt=True, arguments=arguments)
    assert '```json\n{"city": "Bern"}\n```' in found


THOUGHT = (
    Message("system", "Be brief."),
    Message("user", "2 + 2?"),
    Message("assistant", "<think>\nOn my fingers.\n</think>\n\nIt is 4."),
    Message("user", "3 + 3?"),
)


def test_a_template_made_for_thinking_leaves_earlier_thinking_out() -> None:
    plain = ChatTemplate(CHATML, {})
    made, always = (plain.for_thinking(always=opens) for opens in (False, True))
    assert [one.knows_thinking for one in (plain, made, always)] == [False, True, True]
    assert [one.opens_thinking for one in (plain, made, always)] == [False, False, True]
    assert made.for_thinking(always=True) is made
    assert always.render(THOUGHT) == made.render(THOUGHT) + "<think>\n"
    assert always.render(THOUGHT, add_generation_prompt=False) == made.render(THOUGHT, add_generation_prompt=False)
    found = made.render(THOUGHT)
    assert found == plain.render((*THOUGHT[:2], Message("assistant", "It is 4."), THOUGHT[3]))
    assert found == by_transformers(made.source, {}, THOUGHT, add_generation_prompt=True)
    assert made.render(THOUGHT[:2]) == plain.render(THOUGHT[:2])


def test_a_template_made_for_thinking_keeps_calls_and_tools(default_checkpoint: Checkpoint) -> None:
    plain = ChatTemplate("{{ messages[1]['tool_calls'][0]['function']['name'] }}", {}, tool_source="{{ tools[0] }}")
    made = plain.for_thinking(always=False)
    assert made.render(TOOL_TURN) == plain.render(TOOL_TURN)
    assert made.render(TOOL_TURN, tools=({"a": 1},)) == plain.render(TOOL_TURN, tools=({"a": 1},))
    default = default_checkpoint.template
    assert default.for_thinking(always=False).render(THOUGHT[:2]) == default.render(THOUGHT[:2])


def test_thinking_opened_in_the_prompt(r1_source: str) -> None:
    # The header holds the template of January 2025, which leaves the tag to the model; the present one opens it.
    assert not ChatTemplate(r1_source, R1_SPECIAL).opens_thinking
    present = r1_source.replace("{{'<｜Assistant｜>'}}{% endif %}", "{{'<｜Assistant｜><think>\\n'}}{% endif %}")
    assert present != r1_source
    template = ChatTemplate(present, R1_SPECIAL)
    assert template.knows_thinking
    assert template.opens_thinking
    prompt = template.render(CONVERSATIONS["one"])
    assert prompt.endswith("<｜Assistant｜><think>\n")
    assert ends_thinking(prompt)
    assert not ends_thinking(template.render(CONVERSATIONS["one"], add_generation_prompt=False))


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_default_model_as_transformers_renders_it(default_checkpoint: Checkpoint, name: str) -> None:
    template = default_checkpoint.template
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    expected = by_transformers(template.source, special, CONVERSATIONS[name], add_generation_prompt=True)
    assert template.render(CONVERSATIONS[name]) == expected
    assert not template.knows_thinking
    assert not template.knows_tools


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("thinking", [None, True, False])
def test_a_template_with_tools_and_a_thinking_switch(name: str, thinking: bool | None) -> None:
    variables = {} if thinking is None else {"enable_thinking": thinking}
    template = ChatTemplate(QWEN_TOOLS, {})
    assert template.knows_tools
    assert template.knows_thinking
    for tools in ([], [TOOL]):
        found = template.render(CONVERSATIONS[name], tools=tools, variables=variables)
        options = {"tools": tools or None, "add_generation_prompt": True, **variables}
        assert found == by_transformers(QWEN_TOOLS, {}, CONVERSATIONS[name], **options)


def test_tool_calls_as_objects() -> None:
    found = ChatTemplate(QWEN_TOOLS, {}).render(TOOL_TURN, tools=[TOOL])
    expected = by_transformers(
        QWEN_TOOLS, {}, TOOL_TURN, tools=[TOOL], add_generation_prompt=True, arguments={"city": "Bern"}
    )
    assert found == expected


def test_a_template_of_its_own_for_tools() -> None:
    template = ChatTemplate("plain", {}, tool_source="with {{ tools | length }}")
    assert template.render(CONVERSATIONS["one"]) == "plain"
    assert template.render(CONVERSATIONS["one"], tools=[TOOL]) == "with 1"


def test_chatml_where_there_is_none() -> None:
    assert ChatTemplate(CHATML, {}).render(CONVERSATIONS["system"][:1]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_tools_and_media_that_have_no_place_are_refused() -> None:
    with pytest.raises(Unsupported, match="no place for tools"):
        ChatTemplate(CHATML, {}).render(CONVERSATIONS["one"], tools=[TOOL])
    with pytest.raises(Unsupported, match="text alone"):
        ChatTemplate(CHATML, {}).render((Message("user", "see", media=(MediaPart("image", "data:"),)),))


def test_a_template_may_refuse_a_conversation() -> None:
    source = "{% if messages[0].role != 'user' %}{{ raise_exception('begin with the user') }}{% endif %}ok"
    assert ChatTemplate(source, {}).render(CONVERSATIONS["one"]) == "ok"
    with pytest.raises(Invalid, match="begin with the user"):
        ChatTemplate(source, {}).render(CONVERSATIONS["system"])


def test_extensions_that_templates_use() -> None:
    source = (
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% endfor %} {{ strftime_now('%Y') | length }} {{ [1, {'a': '<é>'}] | tojson }}"
        " {{ [1] | tojson(indent=2) }} {{ loop is defined }} {{ bos_token }}{{ missing }}"
    )
    template = ChatTemplate(source, {"bos_token": "B"})
    assert template.render(CONVERSATIONS["turns"]) == 'a 4 [1, {"a": "<é>"}] [\n  1\n] False B'


def test_a_broken_template_is_an_error_of_the_checkpoint() -> None:
    with pytest.raises(CheckpointError, match="no valid Jinja"):
        ChatTemplate("{% for %}", {}).render(CONVERSATIONS["one"])
    with pytest.raises(CheckpointError, match="1048576 characters at most"):
        ChatTemplate("x" * (2 << 20), {}).render(CONVERSATIONS["one"])


HOSTILE = {
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "nested texts": "{% for a in 'x'*99 %}{% for b in 'x'*999 %}{% for c in 'x'*999 %}{% for d in 'x'*999 %}"
    "{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
    "multiply": "{{ 'a' * 10**10 }}",
    "multiply a list": "{{ ([0] * 10**9) | length }}",
    "power": "{{ 10 ** (10 ** 8) }}",
    "add": "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}"
    "{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "concat": "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}"
    "{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "set blocks": "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}"
    "{% for i in range(60) %}{% set t %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = t %}{% endfor %}",
    "output": "{% for i in range(90000) %}{{ 'x' * 100000 }}{% endfor %}",
    "center": "{{ 'a' | center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "format": "{{ '%9999999999d' % 1 }}",
    "format method": "{{ '{:>9999999999}'.format(1) }}",
    "format filter": "{{ '%9999999999d' | format(1) }}",
    "replace": "{% set a = 'a' * 9999999 %}{{ (a | replace('a', a)) | length }}",
    "replace method": "{% set a = 'a' * 9999999 %}{{ a.replace('a', a) | length }}",
    "join": "{% set a = 'a' * 9999999 %}{{ ([1] * 99999) | join(a) | length }}",
    "join method": "{% set a = 'a' * 9999999 %}{{ a.join(['b'] * 99999) | length }}",
    "indent": "{{ ('a\n' * 99999) | indent(99999) | length }}",
    "shared lists": "{% set ns = namespace(a=[1]) %}"
    "{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
    "shared json": "{% set ns = namespace(a=[1]) %}"
    "{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | tojson }}",
    "json indent": "{{ [[[1]]] | tojson(indent=10**9) }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "sum": "{{ [[1] * 99999, [1] * 99999] | sum(start=[]) | length }}",
    "dunder": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "namespace": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "mutation": "{{ messages.append(1) }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_are_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("temper.models.template_sandbox.MAX_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises((CheckpointError, Invalid)):
        ChatTemplate(HOSTILE[name], {}).render(CONVERSATIONS["one"])
    assert time.monotonic() - started < 3


def test_templates_see_nothing_of_python() -> None:
    source = "{{ raise_exception.__globals__ }}{{ messages.__class__ }}{{ namespace.__init__ }}"
    with pytest.raises(CheckpointError, match="unsafe"):
        ChatTemplate(source + "{{ messages.__class__.__mro__ }}", {}).render(CONVERSATIONS["one"])
    assert ChatTemplate("{{ raise_exception.__globals__ }}", {}).render(CONVERSATIONS["one"]) == ""


def test_long_prompts_are_no_attack() -> None:
    long = "line of text\n" * 300_000
    found = ChatTemplate(QWEN_TOOLS, {}).render(
        (Message("user", long), Message("assistant", long), Message("user", "?"))
    )
    assert len(found) > 2 * len(long)
