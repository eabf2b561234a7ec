"""The one shape of a training example, and how other people's shapes become it.

    {"messages": [{"role": "user", "content": "…"},
                  {"role": "assistant", "content": "<think>\\n…\\n</think>\\n\\nAnswer: 42"}],
     "answer": "42",
     "metadata": {"task": "arithmetic", …}}

Also read: ShareGPT (`conversations` of `from` and `value`), Alpaca (`instruction`, `input`, `output`), prompt and
completion, and plain text (`text`). Knows no files; whoever reads one adds where the record stands.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from temper.errors import Invalid

ROLES: Final = ("system", "user", "assistant", "tool")
SHAREGPT_ROLES: Final = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "tool": "tool",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
THINK_OPEN: Final = "<think>\n"
THINK_CLOSE: Final = "\n</think>\n\n"
SHAPES: Final = "messages | conversations (ShareGPT) | instruction, output (Alpaca) | prompt, completion | text"
MAX_DEPTH_ERROR: Final = "nested too deep"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Record:
    """One example: a conversation, or a plain text to be continued."""

    messages: tuple[Turn, ...] = ()
    """Empty for plain text."""
    text: str = ""
    """Plain text; empty for a conversation."""
    answer: str | None = None
    """The checkable answer, where there is one."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def prompt(self) -> str:
        """All that stands before the last answer."""
        turns = self.messages[:-1] if self.messages and self.messages[-1].role == "assistant" else self.messages
        return "\n\n".join(turn.content for turn in turns) if self.messages else self.text

    @property
    def response(self) -> str:
        """The last answer, with its thinking; empty where there is none."""
        last = self.messages[-1] if self.messages else None
        return last.content if last is not None and last.role == "assistant" else ""

    @property
    def all_text(self) -> str:
        """Everything that is said."""
        return "\n\n".join(turn.content for turn in self.messages) if self.messages else self.text

    def with_metadata(self, **more: Any) -> Record:
        """A copy with more said about it."""
        return replace(self, metadata={**self.metadata, **more})

    def to_json(self) -> dict[str, Any]:
        """Plain data in the order of the documentation."""
        body: dict[str, Any] = {"text": self.text}
        if self.messages:
            body = {"messages": [{"role": turn.role, "content": turn.content} for turn in self.messages]}
        return {**body, "answer": self.answer, "metadata": dict(self.metadata)}

    def line(self) -> bytes:
        """One line of JSONL. The same record gives the same bytes.

        Raises:
            Invalid: its metadata holds a number that JSON has not.
        """
        try:
            text = json.dumps(self.to_json(), ensure_ascii=False, separators=(", ", ": "), allow_nan=False, default=str)
            return text.encode() + b"\n"
        except ValueError as error:
            raise Invalid(f"metadata must be JSON in UTF-8, but is not: {error}", param="metadata") from None

    def content_key(self) -> str:
        """What stands for the words alone: equal for exact duplicates, whatever their metadata."""
        said: Any = [[turn.role, " ".join(turn.content.split())] for turn in self.messages] or " ".join(
            self.text.split()
        )
        return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()


def thought(working: Sequence[str] | str, answer: str) -> str:
    """An assistant's answer with its thinking in front."""
    body = working if isinstance(working, str) else "\n".join(working)
    return f"{THINK_OPEN}{body.strip()}{THINK_CLOSE}{answer}"


def read_record(raw: Any) -> Record:
    """A record from parsed JSON in any of the known shapes.

    Raises:
        Invalid: it has none of them, or breaks its rules.
    """
    if isinstance(raw, str):
        raw = {"text": raw}
    if not isinstance(raw, Mapping):
        raise Invalid(f"a record is a JSON object, but is {_named(raw)}", hint=f"shapes: {SHAPES}")
    answer, metadata = raw.get("answer"), raw.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise Invalid(f"'metadata' is an object, but is {_named(metadata)}", param="metadata")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | None):
        raise Invalid(f"'answer' is text, a number or null, but is {_named(answer)}", param="answer")
    found = _shaped(raw)
    return replace(found, answer=None if answer is None else str(answer), metadata=_kept(raw, metadata))


def _shaped(raw: Mapping[str, Any]) -> Record:
    given = [name for name in ("messages", "conversations", "instruction", "prompt", "text") if name in raw]
    # `text` beside another shape is how Alpaca files carry a rendered copy.
    shapes = [name for name in given if name != "text"] or given
    if len(shapes) > 1 and set(shapes) != {"prompt", "messages"}:
        raise Invalid(
            f"a record has one shape, but this one has {' and '.join(repr(name) for name in shapes)}",
            param=shapes[1], hint="remove one of them",
        )  # fmt: skip
    match shapes[0] if shapes else None:
        case "messages":
            return Record(_messages(raw["messages"], "messages", "role", "content", {role: role for role in ROLES}))
        case "conversations":
            turns = raw["conversations"]
            if isinstance(turns, list) and turns and isinstance(turns[0], Mapping) and "role" in turns[0]:
                return Record(_messages(turns, "conversations", "role", "content", SHAREGPT_ROLES))
            found = _messages(turns, "conversations", "from", "value", SHAREGPT_ROLES)
            system = raw.get("system")
            return Record((Turn("system", _text(system, "system")), *found) if system else found)
        case "instruction":
            return _alpaca(raw)
        case "prompt":
            if "completion" not in raw:
                raise Invalid("a record with 'prompt' needs 'completion', but has none", param="completion")
            prompt, completion = _text(raw["prompt"], "prompt"), _text(raw["completion"], "completion")
            return Record((Turn("user", prompt), Turn("assistant", completion)))
        case "text":
            return Record(text=_text(raw["text"], "text"))
    known = ", ".join(sorted(map(str, raw))[:8]) or "none"
    raise Invalid(f"a record has one of the known shapes, but its fields are: {known}", hint=f"shapes: {SHAPES}")


def _alpaca(raw: Mapping[str, Any]) -> Record:
    if "output" not in raw:
        raise Invalid("an Alpaca record needs 'output', but has none", param="output")
    instruction, output = _text(raw["instruction"], "instruction"), _text(raw["output"], "output")
    given = raw.get("input") or ""
    if not isinstance(given, str):
        raise Invalid(f"'input' is text, but is {_named(given)}", param="input")
    asked = f"{instruction}\n\n{given}" if given.strip() else instruction
    system = raw.get("system")
    before = (Turn("system", _text(system, "system")),) if system else ()
    return Record((*before, Turn("user", asked), Turn("assistant", output)))


def _messages(turns: Any, name: str, role_field: str, content_field: str, roles: Mapping[str, str]) -> tuple[Turn, ...]:
    if not isinstance(turns, list):
        raise Invalid(f"'{name}' is a list, but is {_named(turns)}", param=name)
    if not turns:
        raise Invalid(f"'{name}' holds one message or more, but is empty", param=name)
    found = []
    for at, turn in enumerate(turns):
        where = f"{name}[{at}]"
        if not isinstance(turn, Mapping):
            raise Invalid(f"{where} is an object, but is {_named(turn)}", param=name)
        for needed in (role_field, content_field):
            if needed not in turn:
                raise Invalid(f"{where} needs '{needed}', but has {', '.join(map(str, turn)) or 'nothing'}", param=name)
        role = turn[role_field]
        if not isinstance(role, str) or role not in roles:
            raise Invalid(f"{where}.{role_field} is one of {', '.join(roles)}, but is {role!r}", param=name)
        found.append(Turn(roles[role], _text(_with_reasoning(turn, content_field), f"{where}.{content_field}")))
    _check_order(found, name)
    return tuple(found)


def _with_reasoning(turn: Mapping[str, Any], content_field: str) -> Any:
    """The content; thinking that stands beside it, as DeepSeek's API gives it, goes in front."""
    content, reasoning = turn[content_field], turn.get("reasoning_content") or turn.get("reasoning")
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if isinstance(reasoning, str) and isinstance(content, str) and "</think>" not in content:
        return thought(reasoning, content)
    return content


def _check_order(turns: Sequence[Turn], name: str) -> None:
    spoken = [turn for turn in turns if turn.role != "system"]
    if any(turn.role == "system" for turn in turns[1:]):
        raise Invalid(f"a system message stands first, but '{name}' has one further down", param=name)
    if not spoken:
        raise Invalid(f"'{name}' needs a user's or an assistant's message, but has system messages alone", param=name)
    for at, (one, two) in enumerate(itertools.pairwise(spoken)):
        if one.role == two.role == "assistant":
            raise Invalid(f"users and assistants take turns, but two assistant messages follow each other in "
                          f"'{name}' ({at + 1} and {at + 2})", param=name, hint="join them")  # fmt: skip


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"'{name}' is text, but is {_named(value)}", param=name)
    if not value.strip():
        raise Invalid(f"'{name}' holds text, but is empty", param=name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid(f"'{name}' must be Unicode text, but holds a lone surrogate", param=name) from None
    if "\x00" in value:
        raise Invalid(f"'{name}' must be text, but holds a NUL character", param=name)
    return value


def _kept(raw: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Metadata, and what else stood in the record: nothing is lost without a word."""
    consumed = {"messages", "conversations", "instruction", "input", "output", "prompt", "completion", "text", "system",
                "answer", "metadata"}  # fmt: skip
    other = {str(name): value for name, value in raw.items() if name not in consumed}
    return {**other, **(metadata or {})}


def _named(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    kind = kinds.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
    return f"{kind} ({str(value)[:40]!r})" if not isinstance(value, type(None)) else kind
