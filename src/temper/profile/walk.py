"""A walk over the schema: every field with its dotted path, type, default, and what a study may vary.

The documentation, the command line, the messages about unknown keys and the tuner all read the schema
through here, so that no default, range or description is written twice. It knows types, not values: files
and presets are `store`'s.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from temper.profile.descriptions import description
from temper.profile.schema import Profile, Tunable


@dataclass(frozen=True, slots=True)
class Field:
    """One leaf of the schema."""

    path: str
    """Dotted, from the root: `engine.kv.block_tokens`."""
    kind: str | None
    """The engine kind that has this field; None for fields that every profile has."""
    section: type[BaseModel]
    """The class it stands in."""
    annotation: Any
    """Its Python type, without metadata."""
    default: Any
    """`PydanticUndefined` when it must be given."""
    metadata: tuple[Any, ...]
    """What stands beside its type, also inside the arms of a union."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def description(self) -> str:
        """What it means."""
        return description(self.section, self.name)

    @property
    def rule(self) -> str:
        """What values are allowed, in words."""
        return describe_rule(self.annotation, self.metadata)

    @property
    def tunable(self) -> Tunable | None:
        """What a study may vary; None where it may not."""
        return next((item for item in self.metadata if isinstance(item, Tunable)), None)

    @property
    def server(self) -> str | None:
        """The server of another make that has this flag; None for what is no flag."""
        server: str | None = getattr(self.section, "server", None)
        return server

    @property
    def choices(self) -> tuple[Any, ...]:
        """The only values allowed, where the type is a choice among literals; else empty."""
        options = [option for option in _options(self.annotation) if option is not type(None)]
        if all(typing.get_origin(option) is Literal for option in options):
            return tuple(value for option in options for value in typing.get_args(option))
        return ()


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The model classes that a type may hold: one, or the members of a union, or the items of a tuple."""
    found: list[type[BaseModel]] = []
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            found.append(option)
        elif typing.get_origin(option) in (tuple, list):
            for item in typing.get_args(option):
                found.extend(sections(item))
    return found


def fields(root: type[BaseModel] | BaseModel = Profile) -> tuple[Field, ...]:
    """All leaves below `root`, in the order of the schema.

    A class gives the fields of every kind of engine, each once: what holds further engines is one leaf. An instance
    gives those of the kinds it has chosen, all the way down.
    """
    return tuple(_walk(root, "", None))


def tunable_fields(root: type[BaseModel] | BaseModel = Profile) -> tuple[Field, ...]:
    """The leaves that a study may vary: dotted path, type and `Tunable` of each."""
    return tuple(field for field in fields(root) if field.tunable is not None)


def kind_of(section: type[BaseModel]) -> str | None:
    """The `kind` that selects this class in a union, if it has one."""
    info = section.model_fields.get("kind")
    if info is None or len(typing.get_args(info.annotation)) != 1:
        return None
    return str(typing.get_args(info.annotation)[0])


def describe_rule(annotation: Any, metadata: Sequence[Any]) -> str:
    """The allowed values in words: `a whole number, at least 1, at most 4096, or 'auto'`."""
    bounds = []
    for constraint in _constraints(metadata):
        for attribute, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
            if hasattr(constraint, attribute):
                bounds.append(f"{words} {getattr(constraint, attribute)}")
    parts, literals, optional = [], [], False
    for option in _options(annotation):
        if option is type(None):
            optional = True
        elif typing.get_origin(option) is Literal:
            literals += [repr(value) if isinstance(value, str) else str(value) for value in typing.get_args(option)]
        elif isinstance(option, type) and issubclass(option, BaseModel):
            if "a table" not in parts:
                parts.append("a table")
        elif typing.get_origin(option) is tuple and sections(option):
            parts.append("a list of tables")
        else:
            words = _TYPE_WORDS.get(typing.get_origin(option) or option, "a value")
            parts.append(", ".join([words, *(bounds if option in (int, float) else [])]))
    if literals:
        parts.append(literals[0] if len(literals) == 1 else f"one of {', '.join(literals)}")
    return " or ".join(parts) + (", or left out" if optional else "")


_TYPE_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    tuple: "a list",
    list: "a list",
    dict: "a table",
}


def _options(annotation: Any) -> list[Any]:
    """The members of a union, metadata and aliases peeled off; a single type is its own only member."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [option for member in typing.get_args(annotation) for option in _options(member)]
    return [annotation]


def _constraints(metadata: Sequence[Any]) -> Iterator[Any]:
    for item in metadata:
        if isinstance(item, annotated_types.GroupedMetadata):
            yield from item
        else:
            yield item


def _metadata(info: FieldInfo) -> list[Any]:
    """What stands beside a field's type, also inside the arms of a union."""
    found = list(info.metadata)
    pending = [info.annotation]
    while pending:
        annotation = pending.pop()
        if typing.get_origin(annotation) is typing.Annotated:
            base, *extra = typing.get_args(annotation)
            for item in extra:
                found.extend(item.metadata if isinstance(item, FieldInfo) else [item])
            pending.append(base)
        elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
            pending.extend(typing.get_args(annotation))
    return found


def _walk(root: type[BaseModel] | BaseModel, prefix: str, kind: str | None) -> Iterator[Field]:
    section = root if isinstance(root, type) else type(root)
    for name, info in section.model_fields.items():
        path = f"{prefix}{name}"
        children: list[tuple[str, type[BaseModel] | BaseModel]] = []
        if isinstance(root, BaseModel):
            value = getattr(root, name)
            if isinstance(value, BaseModel):
                children = [(path, value)]
            elif isinstance(value, tuple | list) and value and all(isinstance(item, BaseModel) for item in value):
                children = [(f"{path}.{index}", item) for index, item in enumerate(value)]
        if not children:
            children = [(path, child) for child in sections(info.annotation)]
            if kind is not None and any(kind_of(child) for _, child in children if isinstance(child, type)):
                children = []  # engines inside an engine: their fields are those of their own kinds
        if children:
            for child_path, child in children:
                child_class = child if isinstance(child, type) else type(child)
                yield from _walk(child, f"{child_path}.", kind_of(child_class) or kind)
        else:
            default = info.get_default(call_default_factory=True, validated_data={}) if not info.is_required() else None
            yield Field(
                path=path,
                kind=kind,
                section=section,
                annotation=info.annotation,
                default=PydanticUndefined if info.is_required() else default,
                metadata=tuple(_metadata(info)),
            )
