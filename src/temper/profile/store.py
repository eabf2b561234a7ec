"""Profiles as files, names and hashes: load, save, override, compare, identify.

A profile is named by preset, by file, or (once versions are stored) by version id; `resolve` is the one
place that decides which. Knows nothing of engines, of the place that a profile runs in, or of checkpoints
beyond the hash of their manifest, which the caller brings.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from temper.errors import NotFound, ProfileError
from temper.profile.explain import profile_error, unknown_field
from temper.profile.presets import nearest, preset_names, preset_text
from temper.profile.schema import AdapterFolders, CheckpointName, Profile
from temper.profile.walk import fields

Find = Callable[[str], Profile | None]
"""Looks a name up elsewhere, such as a store of versions; None when it is not there."""


# -- reading and writing ---------------------------------------------------------------------------


def resolve(name: str, find_version: Find | None = None) -> Profile:
    """The profile called `name`: a preset, a TOML file, or what `find_version` knows.

    Raises:
        NotFound: nothing has this name; the hint names the nearest preset.
        ProfileError: it is there and breaks the schema.
    """
    if name in preset_names():
        return parse(preset_text(name), source=f"preset '{name}'")
    if name.endswith(".toml") or "/" in name:
        return load(Path(name))
    found = find_version(name) if find_version is not None else None
    if found is None:
        raise NotFound(
            f"no profile is called '{name}': it is neither a preset nor a .toml file",
            param="profile",
            hint=nearest(name, preset_names()),
        )
    return found


def load(path: Path) -> Profile:
    """Read a profile from a TOML file.

    Raises:
        NotFound: there is no such file.
        ProfileError: it is not TOML (names the line), or breaks the schema (names field, value and rule).
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFound(
            f"there is no profile file {path}", param="profile", hint="give a preset's name or a file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} cannot be read as text: {error}", param="profile") from None
    return parse(text, source=str(path))


def parse(text: str, source: str = "profile") -> Profile:
    """The profile that TOML `text` describes; fields left out have their defaults."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error).replace("at end of document", f"at line {text.count(chr(10)) + 1}, the end")
        raise ProfileError(f"{source} is not TOML: {reason}", hint="see docs/profiles.md for an example") from None
    return validate(data, source)


def validate(data: Mapping[str, Any], source: str = "profile") -> Profile:
    """The profile that plain `data` describes.

    Raises:
        ProfileError: with every broken field; `param` is the first one's dotted path.
    """
    engine = data.get("engine")
    if isinstance(engine, Mapping) and "kind" not in engine:
        data = {**data, "engine": {"kind": "native", **engine}}  # a union needs its tag; ours has a default
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise profile_error(error, data, source) from None


def dumps(profile: Profile, *, only_changes: bool = False) -> str:
    """TOML that `parse` reads back to an equal profile. Fields that are None are left out: TOML has no null."""
    data = profile.model_dump(mode="json", exclude_none=True)
    if only_changes:
        defaults = _unfilled(type(profile.engine))
        data = _changes(data, {**Profile().model_dump(mode="json"), "engine": defaults})
        data = {"schema_version": profile.schema_version, **data}
        data["engine"] = {"kind": profile.engine.kind, **data.get("engine", {})}
    return tomli_w.dumps(data)


def _unfilled(section: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a section, without what must be given."""
    return section.model_construct().model_dump(mode="json")


def save(profile: Profile, path: Path) -> None:
    """Write a profile to a TOML file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(dumps(profile), "utf-8")
    temporary.replace(path)


# -- changing --------------------------------------------------------------------------------------


def override(profile: Profile, changes: Mapping[str, Any]) -> Profile:
    """A copy with some fields changed, named by dotted path or by any unambiguous end of one.

    A new `kind` starts that engine from its defaults. The value None clears an optional field.

    Raises:
        ProfileError: unknown or ambiguous name, or a value that breaks the rule.
    """
    data = profile.model_dump(mode="json")
    inner = tuple(field.path for field in fields(profile))
    ordered = sorted(
        changes.items(), key=lambda item: not item[0].endswith("kind")
    )  # a kind decides what else is known
    for name, value in ordered:
        kind = data["engine"]["kind"]
        path = full_path(name, str(kind), inner, data["engine"])
        *parents, last = path.split(".")
        target: Any = data
        for part in parents:
            if isinstance(target, list):
                target = target[int(part)]
                continue
            if not isinstance(target.get(part), dict | list):
                target[part] = {}
            target = target[part]
        if last == "kind" and path == "engine.kind" and value != kind:
            target.clear()
        target[last] = value
    return validate(data, "overrides")


def full_path(name: str, kind: str, inner: Sequence[str] = (), engine: Mapping[str, Any] | None = None) -> str:
    """The whole dotted path of a field given by an unambiguous end of it: `max_sequences`, `kv.dtype`.

    `inner` are paths that one profile has beyond those of its kind: fields of engines within engines, such as
    `engine.children.0.script`; `engine` is its section, for the message when there is none.

    Raises:
        ProfileError: no field ends so, or several do.
    """
    known = [field.path for field in fields() if field.kind in (None, kind)] + ["engine.kind"]
    known += [path for path in inner if path not in known]
    if name in known:
        return name
    tables = {".".join(path.split(".")[:count]) for path in known for count in range(1, path.count(".") + 1)}
    ends = sorted({path for path in (*known, *tables) if path.endswith(f".{name}")})
    if len(ends) == 1:
        return ends[0]
    if not ends:
        raise ProfileError(unknown_field(name, {"engine": engine or {"kind": kind}}), param=name)
    raise ProfileError(f"'{name}' could be {' or '.join(ends)}; write more of its path", param=name)


def parse_override(text: str) -> tuple[str, Any]:
    """`field=value` as a pair. The value is read as TOML (`32`, `true`, `[1.0, 0.5]`), `null` as None, else as text.

    Raises:
        ProfileError: there is no `=`.
    """
    name, equals, raw = text.partition("=")
    name, raw = name.strip(), raw.strip()
    if not equals or not name:
        raise ProfileError(f"an override is written field=value, but is '{text}'", param=text)
    if raw == "null":
        return name, None
    try:
        return name, tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return name, raw


# -- identity and difference -----------------------------------------------------------------------


def canonical_json(profile: Profile, manifests: Mapping[str, str]) -> str:
    """The one text that a profile has: sorted keys, no spaces, defaults filled in, `auto` kept as `auto`.

    `manifests` maps each checkpoint and each adapter's folder that the profile names to a SHA-256 of its content,
    which stands in its place: so the text holds no path, and the same weights are the same version wherever they lie.
    """
    data = profile.model_dump(mode="json")

    def parent_of(path: str) -> tuple[Any, str]:
        *parents, last = path.split(".")
        target = data
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        return target, last

    def hash_of(source: str, what: str, path: str, hint: str) -> str:
        if source not in manifests:
            raise ProfileError(
                f"the hash of {what} '{source}' is needed to identify this profile", param=path, hint=hint
            )
        return manifests[source]

    for path in checkpoint_paths(profile):
        target, last = parent_of(path)
        target[last] = {"manifest": hash_of(target[last], "checkpoint", path, "fetch it first: temper pull")}
    for path in _marked(profile, AdapterFolders):
        target, last = parent_of(path)
        target[last] = {
            name: {"adapter": hash_of(folder, "adapter", path, "give the folder that PEFT wrote")}
            for name, folder in target[last].items()
        }
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def version_id(profile: Profile, manifests: Mapping[str, str]) -> str:
    """SHA-256 over the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(profile, manifests).encode("utf-8")).hexdigest()


def checkpoint_paths(profile: Profile) -> tuple[str, ...]:
    """Dotted paths of the fields that name a checkpoint, where they do."""
    return _marked(profile, CheckpointName)


def adapter_folders(profile: Profile) -> tuple[str, ...]:
    """The folders of the adapters that a profile names, each once."""
    found = (folder for path in _marked(profile, AdapterFolders) for folder in _value(profile, path).values())
    return tuple(dict.fromkeys(found))


def _marked(profile: Profile, mark: type) -> tuple[str, ...]:
    """Dotted paths of the fields with this mark beside their type, where they have a value."""
    return tuple(
        field.path
        for field in fields(profile)
        if any(isinstance(item, mark) for item in field.section.model_fields[field.name].metadata)
        and _value(profile, field.path) is not None
    )


def _value(profile: Profile, path: str) -> Any:
    value: Any = profile
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, tuple | list) else getattr(value, part)
    return value


def checkpoints(profile: Profile) -> tuple[str, ...]:
    """The checkpoints that a profile names, each once."""
    flat = _flat(profile)
    return tuple(dict.fromkeys(str(flat[path]) for path in checkpoint_paths(profile)))


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs between two profiles; a side that lacks the field has None."""

    path: str
    before: Any
    after: Any


def diff(a: Profile, b: Profile) -> tuple[Change, ...]:
    """The fields in which two profiles differ, by dotted path in the order of the schema."""
    before, after = _flat(a), _flat(b)
    paths = list(dict.fromkeys((*before, *after)))
    return tuple(
        Change(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    )


def _flat(value: BaseModel | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a profile by dotted path."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    leaves: dict[str, Any] = {}
    for name, item in data.items():
        if isinstance(item, list) and item and all(isinstance(entry, Mapping) for entry in item):
            item = {str(number): entry for number, entry in enumerate(item)}
        if isinstance(item, Mapping):
            leaves.update(_flat(item, f"{prefix}{name}."))
        else:
            leaves[f"{prefix}{name}"] = item
    return leaves


def _changes(data: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """The entries of nested `data` that differ from `default`."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict) and isinstance(default.get(name), dict):
            inner = _changes(value, default[name])
            if inner:
                found[name] = inner
        elif value != default.get(name):
            found[name] = value
    return found
