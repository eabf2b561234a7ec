"""Recipes of refine: TOML files under a strict schema, changed by `key=value`.

Errors name the rule, the value met and the fix. Knows no recipe: a schema is a class made of `Section`s, and every room
brings its own.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from temper.errors import Invalid, NotFound
from temper.profile.presets import nearest
from temper.profile.section import Section
from temper.profile.store import parse_override
from temper.profile.walk import Field, fields, sections

MAX_RECIPE_BYTES = 1 << 20

Recipe = TypeVar("Recipe", bound=Section)


def read_recipe(schema: type[Recipe], path: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file with `changes` (each `key=value`) on top.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no TOML, breaks the schema, or a change names no field.
    """
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise Invalid(f"a recipe has {MAX_RECIPE_BYTES} bytes at most, but {path} has {path.stat().st_size}",
                          param="recipe", hint="name a TOML recipe, not its data")  # fmt: skip
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(f"there is no recipe {path}", param="recipe", hint="see docs/training.md for one") from None
    except UnicodeDecodeError as error:
        raise Invalid(f"a recipe is UTF-8 text, but {path} is not: {error}", param="recipe") from None
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{path} is no TOML: {error}", param="recipe", hint="see docs/training.md for one") from None
    return make_recipe(schema, data, changes, source=str(path))


def make_recipe(
    schema: type[Recipe], data: Mapping[str, Any], changes: Sequence[str] = (), source: str = "recipe"
) -> Recipe:
    """The recipe that plain `data` describes, with `changes` on top.

    Raises:
        Invalid: with every field that breaks the schema; `param` is the first one's dotted path.
    """
    merged: dict[str, Any] = _copied(data)
    for text in changes:
        _change(schema, merged, text)
    try:
        return schema.model_validate(merged)
    except ValidationError as error:
        problems: dict[str, str] = {}
        for item in error.errors(include_url=False):
            path = _dotted(schema, item["loc"])
            problems.setdefault(path, _problem(schema, path, item))
        text = "; ".join(problem for problem in problems.values())
        raise Invalid(f"{source}: {text}", param=next(iter(problems)) or None) from None


def recipe_of(
    schema: type[Recipe], recipe: str | Path | Mapping[str, Any], changes: Sequence[str] = ()
) -> tuple[Path, Recipe]:
    """(folder, recipe) of a TOML file or of plain data. Files that it names lie in that folder: the file's own, or the
    working directory.

    Raises:
        NotFound, Invalid: as `read_recipe` and `make_recipe`.
    """
    if isinstance(recipe, Mapping):
        return Path(), make_recipe(schema, recipe, changes)
    return Path(recipe).parent, read_recipe(schema, Path(recipe), changes)


def _change(schema: type[BaseModel], data: dict[str, Any], text: str) -> None:
    """Put one `key=value` into `data`; the key is a dotted path or an unambiguous end of one."""
    name, equals, _ = text.partition("=")
    if not equals or not name.strip():
        raise Invalid(f"a change is written key=value, but is '{text}'", param="changes")
    name, value = parse_override(text)
    known = _paths(schema)
    found = [name] if name in known else sorted(path for path in known if path.endswith(f".{name}"))
    if len(found) > 1:
        raise Invalid(f"'{name}' could be {' or '.join(found)}; write more of its path", param=name)
    if not found:
        raise Invalid(_unknown(schema, name), param=name)
    *parents, last = found[0].split(".")
    for depth, part in enumerate(parents, 1):
        inner = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise Invalid(f"{'.'.join(parents[:depth])} must be a table, but is {inner!r}", param=name)
        data = inner
    if value is None:
        data.pop(last, None)
    else:
        data[last] = value


def _paths(schema: type[BaseModel]) -> list[str]:
    """Dotted paths of all fields and tables."""
    leaves = [field.path for field in fields(schema)]
    return list(dict.fromkeys([*leaves, *_tables(leaves)]))


def _tables(leaves: Iterable[str]) -> list[str]:
    return [".".join(path.split(".")[:count]) for path in leaves for count in range(1, path.count(".") + 1)]


def _copied(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copied(value) if isinstance(value, Mapping) else value for name, value in data.items()}


# -- what is wrong, in words -------------------------------------------------------------------------


def _dotted(schema: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """pydantic's location as a dotted path: labels of a union's arms are left out."""
    parts: list[str] = []
    options: list[type[BaseModel]] = [schema]
    for part in location:
        if isinstance(part, int):
            parts.append(str(part))
        elif options:
            info = next((option.model_fields[part] for option in options if part in option.model_fields), None)
            parts.append(part)
            options = sections(info.annotation) if info is not None else []
    return ".".join(parts)


def _problem(schema: type[BaseModel], path: str, item: Any) -> str:
    """One field's problem; `item` is one of pydantic's error details."""
    value = item["input"]
    if item["type"] == "extra_forbidden":
        return _unknown(schema, path)
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{path} must be a table of fields, but is {_shown(value)}"
    if item["type"] == "missing":
        return f"{path} must be given"
    if item["type"] == "value_error":
        return f"{path}: {item['ctx']['error']}" if path else str(item["ctx"]["error"])
    field = _field(schema, path)
    if field is None:
        return f"{path}: {item['msg'][:1].lower()}{item['msg'][1:]}, but is {_shown(value)}"
    default = field.default
    fix = "" if default is PydanticUndefined or default is None else f" (the default is {default!r})"
    return f"{path} must be {field.rule}, but is {_shown(value)}{fix}"


def _field(schema: type[BaseModel], path: str) -> Field | None:
    return next((field for field in fields(schema) if field.path == path), None)


def _unknown(schema: type[BaseModel], path: str) -> str:
    """For a key that the schema lacks: the nearest that it has, in the same table first."""
    known = _paths(schema)
    parent, _, last = path.rpartition(".")
    beside = {name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent}
    hint = nearest(last, beside) if beside else ""
    if hint.startswith("did you mean"):
        hint = hint.replace("'", f"'{parent}.", 1) if parent else hint
    else:
        ends = {name.rpartition(".")[2]: name for name in reversed(known)}
        close = difflib.get_close_matches(last, ends, n=1, cutoff=0.8 if beside and parent else 0.6)
        hint = f"did you mean '{ends[close[0]]}'?" if close else hint
    return f"unknown field '{path}'; {hint or 'see docs/training.md for every field'}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
