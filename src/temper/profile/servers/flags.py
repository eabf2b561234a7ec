"""What a server's flags are made of: a section whose fields are flags, and how each is spelled on a command line.

A field of a `Flags` class is one flag: its name gives the flag's (`max_num_seqs`: `--max-num-seqs`), its type and
range say what it takes, `Tunable` what a study may try, and `Flag` whatever else there is to know. None means: not
given, the server decides. Reads and writes single values; command lines are `command_line`'s.
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic.fields import FieldInfo

from temper.profile.section import Section

Value = int | float | bool | str

_INT = re.compile(r"[+-]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_SCALED = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmgtKMGT])", re.ASCII)
_SCALES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class Flag:
    """What is known of a flag beyond its name, type and range."""

    names: tuple[str, ...] = ()
    """Other spellings than the field's own, which comes first."""
    off: tuple[str, ...] = ()
    """Spellings that switch it off; empty: it is off when it is not given."""
    concept: str | None = None
    """The field of the native engine that means the same: `batching.max_sequences`; or `speculation`."""
    default: str = ""
    """What the server does when it is not given, in words."""
    scaled: bool = False
    """Sizes such as `16k` (thousands) and `16K` (1024) are understood."""


class Flags(Section):
    """Base of the schemas, one for each kind of server. Flags that are not given are not written anywhere."""

    server: ClassVar[str] = ""
    """The kind of server."""
    programs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """What a command line holds that starts one: program and subcommand, or `-m` and module."""
    port_names: ClassVar[tuple[str, ...]] = ("--port",)
    host_names: ClassVar[tuple[str, ...]] = ("--host",)
    key_names: ClassVar[tuple[str, ...]] = ("--api-key",)
    model_names: ClassVar[tuple[str, ...]] = ("--model",)
    positional_model: ClassVar[bool] = False
    """The model may stand right after the program, without an option before it."""
    underscores: ClassVar[bool] = False
    """`--max_num_seqs` is understood as `--max-num-seqs`."""
    unsuitable: ClassVar[dict[str, str]] = {}
    """Options with which the server cannot be watched or spoken to, and why."""
    key_variable: ClassVar[str] = ""
    """The variable that sets the API key, where there is one."""
    ready_path: ClassVar[str] = "/health"
    """Answers 200 when requests are taken."""

    @model_serializer(mode="wrap")
    def _given_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So a profile keeps its version id when a later schema knows more flags.
        return {name: value for name, value in handler(self).items() if value is not None}


class NoFlags(Flags):
    """A server whose flags are not known here: its command is kept as it is."""

    server: ClassVar[str] = "other"
    host_names: ClassVar[tuple[str, ...]] = ()
    port_names: ClassVar[tuple[str, ...]] = ()
    key_names: ClassVar[tuple[str, ...]] = ()
    model_names: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Spelling:
    """How one flag stands on a command line."""

    field: str
    kinds: tuple[Any, ...]
    """The types it may hold, without None: classes, or the values of a Literal."""
    names: tuple[str, ...]
    off: tuple[str, ...]
    scaled: bool

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.kinds == (bool,)


@cache
def spellings(kind: type[Flags]) -> dict[str, Spelling]:
    """How each flag of a server is spelled, by field."""
    found = {}
    for name, info in kind.model_fields.items():
        flag = flag_of(info)
        own = "--" + name.replace("_", "-")
        names = (own, *flag.names)
        found[name] = Spelling(name, _kinds(info.annotation), names, flag.off, flag.scaled)
    return found


def flag_of(info: FieldInfo) -> Flag:
    """What stands beside a field."""
    return next((item for item in info.metadata if isinstance(item, Flag)), Flag())


def _kinds(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    arms = typing.get_args(annotation)
    if arms:
        return tuple(kind for arm in arms for kind in _kinds(arm) if kind is not type(None))
    return (annotation,)


def read(kind: type[Flags], name: str, text: str) -> Value | None:
    """The value that `text` gives to a flag; None where it gives none that the schema allows."""
    spelling = spellings(kind)[name]
    if spelling.is_switch:
        return True if text in spelling.names else False if text in spelling.off else None
    for value in _readings(spelling, text):
        try:
            read_back = getattr(kind.model_validate({name: value}), name)
        except ValidationError:
            continue
        assert isinstance(read_back, int | float | str)
        return read_back
    return None


def _readings(spelling: Spelling, text: str) -> list[Value]:
    found: list[Value] = []
    for option in spelling.kinds:
        if option is int and _INT.fullmatch(text):
            found.append(int(text))
        elif option is int and spelling.scaled and (match := _SCALED.fullmatch(text)):
            found.append(int(float(match[1]) * _SCALES[match[2]]))
        elif option is float and _FLOAT.fullmatch(text):
            found.append(float(text))
        elif (option is str and not text.startswith("-")) or (isinstance(option, str) and option == text):
            found.append(text)
        elif isinstance(option, int) and _INT.fullmatch(text):
            found.append(int(text))
    return found


def write(value: Value) -> str:
    """The plain spelling of a value that an option takes."""
    return repr(value) if isinstance(value, float) else str(value)
