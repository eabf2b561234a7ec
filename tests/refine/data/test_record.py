"""The record shape: other shapes become it, nothing is lost, and what breaks a rule is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import Invalid
from temper.refine.data.record import Record, Turn, read_record, thought

TURNS = (Turn("user", "Hello"), Turn("assistant", "Hi"))


@pytest.mark.parametrize(
    "raw",
    [
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]},
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]},
        {"conversations": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]},
        {"instruction": "Hello", "input": "", "output": "Hi"},
        {"instruction": "Hello", "output": "Hi", "text": "### Instruction: Hello"},
        {"prompt": "Hello", "completion": "Hi"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]},
                      {"role": "assistant", "content": "Hi"}]},
    ],
)  # fmt: skip
def test_every_shape_becomes_the_one(raw):
    assert read_record(raw).messages == TURNS


def test_input_and_system_of_alpaca():
    found = read_record({"system": "Be kind.", "instruction": "Add", "input": "1, 2", "output": "3", "source": "mine"})
    assert found.messages == (Turn("system", "Be kind."), Turn("user", "Add\n\n1, 2"), Turn("assistant", "3"))
    assert found.metadata == {"source": "mine"}
    assert found.prompt == "Be kind.\n\nAdd\n\n1, 2"
    assert found.response == "3"


def test_thinking_beside_the_content_goes_in_front():
    turns = [
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": "4", "reasoning_content": "Two twos."},
    ]
    assert read_record({"messages": turns}).response == "<think>\nTwo twos.\n</think>\n\n4"


def test_plain_text():
    found = read_record("Once upon a time")
    assert found == Record(text="Once upon a time")
    assert found.prompt == found.all_text == "Once upon a time"
    assert found.response == ""


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (17, "is a JSON object, but is a number"),
        (None, "is a JSON object, but is null"),
        ([1], "is a JSON object, but is a list"),
        ({}, "its fields are: none"),
        ({"question": "x", "response": "y"}, "its fields are: question, response"),
        ({"messages": "hello"}, "'messages' is a list, but is text"),
        ({"messages": []}, "one message or more, but is empty"),
        ({"messages": ["hello"]}, "messages[0] is an object, but is text"),
        ({"messages": [{"role": "user"}]}, "messages[0] needs 'content', but has role"),
        ({"messages": [{"content": "x"}]}, "messages[0] needs 'role'"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "is one of system, user, assistant, tool, but is 'robot'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content' is text, but is a number"),
        ({"messages": [{"role": "user", "content": None}]}, "is text, but is null"),
        ({"messages": [{"role": "user", "content": "  "}]}, "holds text, but is empty"),
        ({"messages": [{"role": "system", "content": "x"}]}, "needs a user's or an assistant's message"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}, "stands first"),
        ({"messages": [{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}]}, "take turns"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "is text, but is a list"),
        ({"conversations": [{"from": "human"}]}, "conversations[0] needs 'value'"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "but is 'alien'"),
        ({"instruction": "Add"}, "needs 'output', but has none"),
        ({"instruction": 5, "output": "x"}, "'instruction' is text"),
        ({"instruction": "Add", "input": [1], "output": "x"}, "'input' is text, but is a list"),
        ({"prompt": "x"}, "needs 'completion'"),
        ({"instruction": "x", "output": "y", "conversations": []}, "has one shape, but this one has"),
        ({"text": ""}, "'text' holds text, but is empty"),
        ({"text": "a\x00b"}, "NUL"),
        ({"text": "\ud800"}, "lone surrogate"),
        ({"text": "x", "metadata": "y"}, "'metadata' is an object, but is text"),
        ({"text": "x", "answer": [1]}, "'answer' is text, a number or null, but is a list"),
        ({"text": "x", "answer": True}, "'answer' is text, a number or null"),
    ],
)  # fmt: skip
def test_bad_records_are_refused_with_rule_and_value(raw, said):
    with pytest.raises(Invalid) as refused:
        read_record(raw)
    assert said in str(refused.value)


words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip)
json_values = st.recursive(st.none() | st.booleans() | st.integers() | words, lambda inner: st.lists(inner, max_size=3))


@given(words, words, words | st.none(), st.dictionaries(words, json_values, max_size=3))
def test_a_record_survives_its_line(user, assistant, answer, metadata):
    record = Record((Turn("user", user), Turn("assistant", assistant)), "", answer, metadata)
    assert read_record(json.loads(record.line())) == record
    assert read_record(json.loads(record.line())).line() == record.line()


@given(st.recursive(json_values, lambda inner: st.dictionaries(
    st.sampled_from(["messages", "conversations", "role", "content", "from", "value", "instruction", "output", "text",
                     "answer", "metadata"]), inner, max_size=4) | st.lists(inner, max_size=3)))  # fmt: skip
def test_any_json_is_read_or_refused(raw):
    try:
        read_record(raw).line()
    except Invalid as error:
        assert str(error)


def test_exact_duplicates_have_one_key():
    one = Record((Turn("user", "a  b"),), metadata={"id": 1})
    assert one.content_key() == Record((Turn("user", "a b\n"),), metadata={"id": 2}).content_key()
    assert one.content_key() != Record((Turn("assistant", "a b"),)).content_key()


def test_thought():
    assert thought(["1 + 1 = 2"], "Answer: 2") == "<think>\n1 + 1 = 2\n</think>\n\nAnswer: 2"


def test_metadata_that_json_cannot_hold_is_refused_when_written():
    with pytest.raises(Invalid, match="metadata must be JSON"):
        Record(text="x", metadata={"score": float("nan")}).line()
    with pytest.raises(Invalid, match="metadata must be JSON"):
        Record(text="x", metadata={"name": "\ud800"}).line()
