"""Recorded requests from files: Mooncake's JSON lines, ShareGPT's conversations, and plain questions.

Reads and checks; every complaint names the file, the line and the rule. Knows nothing of when requests are sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.errors import Invalid, NotFound
from temper.measure.workload.schema import Mooncake, Questions, ShareGpt
from temper.types import Message

CHARS_PER_TOKEN = 4
"""Rough length of recorded text in tokens, where only characters are known."""
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
          "bing": "assistant", "bard": "assistant", "system": "system"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MooncakeLine:
    """One request of a Mooncake trace."""

    timestamp_ms: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One recorded conversation."""

    messages: tuple[Message, ...]
    questions: tuple[tuple[int, int], ...]
    """(place of a user's message that was answered, length of that answer in tokens)."""


def mooncake(content: Mooncake) -> Iterator[MooncakeLine]:
    """The requests of a trace, in the order of the file.

    Raises:
        NotFound: there is no such file.
        Invalid: a line is not JSON, lacks a field, runs back in time, or has too few hash ids for its length.
    """
    last = 0.0
    for number, line in _lines(content.path):
        where = f"{content.path}, line {number}"
        data = _object(line, where)
        timestamp = _number(data, "timestamp", where, least=0)
        if timestamp < last:
            raise Invalid(f"{where}: timestamps must ascend, but {timestamp:g} follows {last:g}", param="content.path")
        last = timestamp
        length = int(_number(data, "input_length", where, least=1))
        output = int(_number(data, "output_length", where, least=1))
        ids = data.get("hash_ids")
        if not isinstance(ids, list) or not all(isinstance(item, int) for item in ids):
            raise Invalid(f"{where}: 'hash_ids' must be a list of whole numbers", param="content.path")
        if len(ids) * content.block_tokens < length:
            raise Invalid(
                f"{where}: {len(ids)} hash ids of {content.block_tokens} tokens cannot fill 'input_length' {length}",
                param="content.block_tokens",
                hint="set block_tokens to what the trace was made with",
            )
        yield MooncakeLine(timestamp, length, output, tuple(ids))


def conversations(content: ShareGpt) -> Iterator[Conversation]:
    """The conversations of a file that hold at least one answered question within the limits.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no JSON, or an entry is no conversation.
    """
    for where, entry in _entries(content.path):
        conversation = _conversation(entry, where, content)
        if conversation.questions:
            yield conversation


def questions(content: Questions) -> Iterator[tuple[Message, ...]]:
    """What is asked, in the order of the file: messages that end with the user's.

    Raises:
        NotFound: there is no such file.
        Invalid: a line is not JSON, or asks nothing.
    """
    for number, line in _lines(content.path):
        where = f"{content.path}, line {number}"
        data = _object(line, where)
        asked = data["messages"] if "messages" in data else [{"role": "user", "content": data.get("prompt")}]
        if not isinstance(asked, list) or not asked:
            raise Invalid(f"{where}: 'messages' must be a list of turns", param="content.path")
        messages = tuple(Message(*_turn(turn, where)) for turn in asked)
        if messages[-1].role != "user":
            raise Invalid(f"{where}: the last turn must be the user's, but is the {messages[-1].role}'s",
                          param="content.path", hint="leave the answer out")  # fmt: skip
        yield messages


def _turn(turn: Any, where: str) -> tuple[str, str]:
    """(role, text) of a turn."""
    speaker = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
    text = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
    if speaker not in _ROLES or not isinstance(text, str):
        raise Invalid(
            f"{where}: a turn needs 'from' or 'role', and its text as 'value' or 'content'",
            param="content.path",
            hint=f"speakers are {', '.join(sorted(_ROLES))}",
        )
    return _ROLES[speaker], text


def _conversation(entry: Any, where: str, content: ShareGpt) -> Conversation:
    said = entry.get("conversations", entry.get("messages")) if isinstance(entry, dict) else None
    if not isinstance(said, list):
        raise Invalid(f"{where}: expected 'conversations' or 'messages', a list of turns", param="content.path")
    messages: list[Message] = []
    questions: list[tuple[int, int]] = []
    num_chars = 0
    for turn in said:
        role, text = _turn(turn, where)
        if role == "assistant" and messages and messages[-1].role == "user":
            too_long = num_chars > CHARS_PER_TOKEN * (content.max_input_tokens or num_chars)
            if too_long or len(questions) == content.max_turns:
                break
            output = max(1, min(len(text) // CHARS_PER_TOKEN, content.max_output_tokens))
            questions.append((len(messages) - 1, output))
        messages.append(Message(role, text))
        num_chars += len(text)
    return Conversation(tuple(messages), tuple(questions))


def _entries(path: str) -> Iterator[tuple[str, Any]]:
    """(where it stands, value) of a JSON list's items, or of JSON lines."""
    text = _read(path)
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except json.JSONDecodeError as error:
            raise Invalid(f"{path}, line {error.lineno}: not JSON: {error.msg}", param="content.path") from None
        for number, item in enumerate(items, 1):
            yield f"{path}, entry {number}", item
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", _object(line, f"{path}, line {number}")


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """(number, text) of each line that is not blank."""
    for number, line in enumerate(_read(path).splitlines(), 1):
        if line.strip():
            yield number, line


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no trace file {path}", param="content.path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read as text: {error}", param="content.path") from None


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Invalid(f"{where}: not JSON: {error}", param="content.path") from None
    if not isinstance(data, dict):
        raise Invalid(f"{where}: a line must be a JSON object, but is {type(data).__name__}", param="content.path")
    return data


def _number(data: dict[str, Any], name: str, where: str, *, least: float) -> float:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e18:
        raise Invalid(
            f"{where}: '{name}' must be a number of at least {least:g}, but is {value!r}", param="content.path"
        )
    return value
