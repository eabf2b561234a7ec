"""What is wrong with a profile, in words: the rule, the value met, and the fix, one line per field.

Turns pydantic's report into a `ProfileError`. Knows the schema through `walk`, and no files.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from temper.errors import ProfileError
from temper.profile.schema import Profile
from temper.profile.walk import fields, kind_of, sections


def profile_error(error: ValidationError, data: Mapping[str, Any], source: str) -> ProfileError:
    """The `ProfileError` for a failed validation of `data`, which came from `source` (a name or file)."""
    problems: dict[str, str] = {}
    for item in error.errors(include_url=False):
        path = dotted(item["loc"])
        if path not in problems:
            problems[path] = _problem(path, item, data)
    # A broken item also leaves its list too short, says pydantic: only the innermost problem is one.
    problems = {
        path: text for path, text in problems.items() if not any(other.startswith(f"{path}.") for other in problems)
    }
    param = next(iter(problems))
    return ProfileError(f"{source}: " + "; ".join(problems.values()), param=param)


def unknown_field(path: str, data: Mapping[str, Any]) -> str:
    """The message for a key that the schema lacks, with the nearest that it has."""
    outer, kind = _innermost(path, data)
    servers = (None, _server(outer, data))
    known = [
        outer + field.path.removeprefix("engine")
        for field in fields()
        if field.kind == kind and field.server in servers
    ]
    known += [field.path for field in fields() if field.kind is None]
    names = {field.rpartition(".")[2]: field for field in reversed(known)}
    tables = {prefix for field in known for prefix in _prefixes(field)}
    close = difflib.get_close_matches(path, [*known, *sorted(tables)], n=1, cutoff=0.75)
    last = difflib.get_close_matches(path.rpartition(".")[2], names, n=1, cutoff=0.7)
    nearest = names[last[0]] if last and last[0] in path else (close[0] if close else names[last[0]] if last else "")
    parent = path.rpartition(".")[0]
    allowed = sorted({field.removeprefix(f"{parent}." if parent else "").split(".")[0] for field in known
                      if field.startswith(f"{parent}." if parent else "")})  # fmt: skip
    if nearest:
        fix = f"did you mean '{nearest}'?"
    elif allowed:
        fix = f"{f'[{parent}]' if parent else 'a profile'} has {', '.join(allowed)}"
    else:
        fix = "see docs/profiles.md for every field"
    return f"unknown field '{path}'; {fix}"


def dotted(location: tuple[int | str, ...]) -> str:
    """pydantic's location as a dotted path of the profile: names of union members are left out."""
    parts: list[str] = []
    options: list[type[BaseModel]] = [Profile]
    for part in location:
        if isinstance(part, int):
            parts.append(str(part))
            continue
        kinds = [option for option in options if kind_of(option) == part]
        if kinds and len(options) > 1:
            options = kinds
            continue
        if not options:
            continue  # inside a leaf: the label of a union's arm
        info = next((option.model_fields[part] for option in options if part in option.model_fields), None)
        parts.append(part)
        options = sections(info.annotation) if info is not None else []
    return ".".join(parts)


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _innermost(path: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """Where the engine that `path` lies in stands, and its kind: (`engine.children.0`, `fake`)."""
    found, value, parts = ("engine", "native"), data, path.split(".")
    for depth, part in enumerate(parts, 1):
        value = _inside(value, part)
        if isinstance(value, Mapping) and ("kind" in value or depth == 1) and part != "temperature_schedule":
            found = (".".join(parts[:depth]), str(value.get("kind", "native"))) if parts[0] == "engine" else found
    return found


def _inside(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
        return value[int(part)]
    return None


def _server(path: str, data: Mapping[str, Any]) -> str:
    """Whose flags the engine at `path` has, where it launches a server of another make."""
    value: Any = data
    for part in path.split("."):
        value = _inside(value, part)
    return str(value.get("server", "other")) if isinstance(value, Mapping) else "other"


def _problem(path: str, item: Any, data: Mapping[str, Any]) -> str:
    """One field's problem; `item` is one of pydantic's error details."""
    if item["type"] == "extra_forbidden":
        return unknown_field(path, data)
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        expected = item.get("ctx", {}).get("expected_tags", "a kind")
        met = f", but is '{item['ctx']['tag']}'" if "tag" in item.get("ctx", {}) else ", and is missing"
        return f"{path}.kind must be one of {expected}{met}"
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{path} must be a table of fields, but is {_shown(item['input'])}"
    if item["type"] == "missing":
        return f"{path} must be given"
    if item["type"] == "value_error":
        return f"{path}: {item['ctx']['error']}"
    outer, kind = _innermost(path, data)
    known = "engine" + path.removeprefix(outer) if path.startswith(f"{outer}.") else path
    servers = (None, _server(outer, data))
    field = next(
        (field for field in fields() if field.path == known and field.kind in (None, kind) and field.server in servers),
        None,
    )
    value = _value_at(data, path, item["input"])
    if field is None:
        shape = "a table" if isinstance(item["input"], Mapping) else repr(item["input"])
        return f"{path}: {item['msg'][:1].lower()}{item['msg'][1:]}, but is {shape}"
    known_default = field.default is not PydanticUndefined and field.default is not None
    fix = f" (the default is {field.default!r})" if known_default else ""
    return f"{path} must be {field.rule}, but is {_shown(value)}{fix}"


def _value_at(data: Mapping[str, Any], path: str, fallback: Any) -> Any:
    value: Any = data
    for part in path.split("."):
        inner = _inside(value, part)
        if inner is None:
            return fallback
        value = inner
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
