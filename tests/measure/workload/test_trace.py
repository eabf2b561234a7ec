from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.errors import Invalid, NotFound
from temper.measure.workload.schema import Mooncake, Questions, ShareGpt
from temper.measure.workload.trace import conversations, mooncake, questions
from temper.types import Message

GOOD = {"timestamp": 0, "input_length": 8, "output_length": 3, "hash_ids": [1]}


def read(tmp_path, text):
    file = tmp_path / "trace.jsonl"
    file.write_text(text)
    return list(mooncake(Mooncake(path=str(file))))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"timestamp": -1}, "'timestamp' must be a number of at least 0, but is -1"),
        ({"timestamp": "soon"}, "'timestamp' must be a number"),
        ({"input_length": 0}, "'input_length' must be a number of at least 1"),
        ({"output_length": None}, "'output_length' must be a number"),
        ({"input_length": True}, "'input_length' must be a number"),
        ({"hash_ids": "1"}, "'hash_ids' must be a list of whole numbers"),
        ({"input_length": 513}, "1 hash ids of 512 tokens cannot fill 'input_length' 513"),
    ],
)
def test_a_broken_line_is_named(tmp_path, changed, said):
    with pytest.raises(Invalid) as caught:
        read(tmp_path, json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | changed))
    assert "trace.jsonl, line 3: " in str(caught.value)
    assert said in str(caught.value)


def test_time_runs_forwards(tmp_path):
    with pytest.raises(Invalid, match=r"line 2: timestamps must ascend, but 5 follows 7"):
        read(tmp_path, "\n".join(json.dumps(GOOD | {"timestamp": at}) for at in (7, 5)))


def test_no_json_and_no_file(tmp_path):
    with pytest.raises(Invalid, match="line 1: not JSON"):
        read(tmp_path, "{")
    with pytest.raises(Invalid, match="must be a JSON object, but is list"):
        read(tmp_path, "[1]")
    with pytest.raises(NotFound, match="there is no trace file"):
        list(mooncake(Mooncake(path=str(tmp_path / "none"))))


@pytest.mark.parametrize(
    "text",
    [
        '[{"turns": []}]',
        '[{"conversations": [{"from": "alien", "value": "hm"}]}]',
        '[{"conversations": [{"from": "human"}]}]',
        '[{"conversations": [7]}]',
        "[7]",
        "[{",
    ],
)
def test_what_is_no_conversation_is_told(tmp_path, text):
    file = tmp_path / "chats.json"
    file.write_text(text)
    with pytest.raises(Invalid, match=r"chats\.json, (entry|line) 1"):
        list(conversations(ShareGpt(path=str(file))))


def test_json_lines_and_openai_names_are_read_too(tmp_path):
    file = tmp_path / "chats.jsonl"
    said = [("system", "s"), ("user", "u"), ("assistant", "abcdefgh")]
    chat = {"messages": [{"role": role, "content": text} for role, text in said]}
    file.write_text(json.dumps(chat) + "\n" + json.dumps({"messages": []}))
    (found,) = conversations(ShareGpt(path=str(file)))
    assert [m.role for m in found.messages] == ["system", "user", "assistant"]
    assert found.questions == ((1, 2),)


def test_long_conversations_end_before_they_are_too_long(tmp_path):
    file = tmp_path / "chats.json"
    said = [{"from": who, "value": "x" * 400} for who in ("human", "gpt") * 5]
    file.write_text(json.dumps([{"conversations": said}]))
    (found,) = conversations(ShareGpt(path=str(file), max_input_tokens=300))
    assert len(found.questions) == 2
    (found,) = conversations(ShareGpt(path=str(file), max_turns=4))
    assert len(found.questions) == 4


def test_questions_are_prompts_or_messages_that_end_with_the_user(tmp_path):
    file = tmp_path / "asked.jsonl"
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    file.write_text(json.dumps({"prompt": "p"}) + "\n\n" + json.dumps({"messages": said, "more": 1}))
    first, second = questions(Questions(path=str(file)))
    assert first == (Message("user", "p"),)
    assert second == (Message("system", "s"), Message("user", "u"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{}", "a turn needs"),
        ('{"prompt": 7}', "a turn needs"),
        ('{"messages": []}', "must be a list of turns"),
        ('{"messages": {"role": "user"}}', "must be a list of turns"),
        (
            '{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}',
            "must be the user's",
        ),
        ('{"messages": [{"role": "nobody", "content": "u"}]}', "a turn needs"),
        ("[1]", "must be a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_what_asks_nothing_is_told(tmp_path, line, words):
    file = tmp_path / "asked.jsonl"
    file.write_text('{"prompt": "p"}\n' + line)
    with pytest.raises(Invalid, match=rf"asked\.jsonl, line 2: .*{words}"):
        list(questions(Questions(path=str(file))))


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("fuzz") / "any"
    file.write_text(text, "utf-8", newline="")
    for entries in (
        mooncake(Mooncake(path=str(file))), conversations(ShareGpt(path=str(file))),
        questions(Questions(path=str(file))),
    ):  # fmt: skip
        try:
            list(entries)
        except Invalid as error:
            assert str(file) in str(error)
