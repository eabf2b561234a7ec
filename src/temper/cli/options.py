"""Command-line options that are profile fields: type, default and help come from the schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import click

from temper.profile import store
from temper.profile.native import NativeEngine
from temper.profile.walk import Field, fields

Function = Callable[..., Any]

SETTINGS: dict[str, str] = {
    "--precision": "engine.compute.precision",
    "--threads": "engine.compute.threads",
    "--max-sequences": "engine.batching.max_sequences",
    "--context-length": "engine.batching.context_length",
}
"""Profile fields that have an option of their own; every other is reached by `--set`."""

SAMPLING: dict[str, str] = {
    "--temperature": "engine.sampling.temperature",
    "--top-p": "engine.sampling.top_p",
    "--top-k": "engine.sampling.top_k",
    "--min-p": "engine.sampling.min_p",
    "--repetition-penalty": "engine.sampling.repetition_penalty",
    "--preset": "engine.sampling.preset",
}
"""Sampling of one question, described by the profile field that it takes the place of."""


def _parameter(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


@cache
def _native_fields() -> Mapping[str, Field]:
    """The fields of the native engine by their path in a profile."""
    return {f"engine.{field.path}": field for field in fields(NativeEngine)}


def _option(option: str, path: str, *, show_default: bool) -> Callable[[Function], Function]:
    """A click option for the profile field at `path`; not given means: as the profile says."""
    field = _native_fields()[path]
    default = f"  [default: {field.default}]" if show_default else ""
    rule = "" if field.choices else f" ({field.rule.removesuffix(', or left out')})"
    kind = click.Choice([str(choice) for choice in field.choices]) if field.choices else None
    return click.option(option, type=kind, help=f"{field.description}{rule}{default}")


def setting_options(function: Function) -> Function:
    """Decorator: options for profile fields, and `--set` for all the others."""
    function = click.option(
        "--set",
        "changes",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Change a profile field, by its path or an unambiguous end of it. May be repeated.",
    )(function)
    function = click.option("--engine", metavar="KIND[:SCRIPT]", help="Another kind of engine, such as fake:echo.")(
        function
    )
    for option, path in reversed(SETTINGS.items()):
        function = _option(option, path, show_default=True)(function)
    return function


def sampling_options(function: Function) -> Function:
    """Decorator: options for the sampling of one request."""
    function = click.option("--max-tokens", type=click.IntRange(1), help="Most new tokens of an answer.")(function)
    function = click.option("--seed", type=int, help="Same seed, same text.")(function)
    for option, path in reversed(SAMPLING.items()):
        function = _option(option, path, show_default=False)(function)
    return function


def overrides(arguments: dict[str, Any]) -> dict[str, Any]:
    """Take the profile options out of a command's arguments: changed fields by dotted path."""
    changes: dict[str, Any] = {}
    engine = arguments.pop("engine")
    if engine:
        kind, colon, script = engine.partition(":")
        changes["engine.kind"] = kind
        if colon:
            changes["engine.script"] = script
    for option, path in SETTINGS.items():
        value = arguments.pop(_parameter(option))
        if value is not None:
            changes[path] = store.parse_override(f"{path}={value}")[1]
    changes.update(store.parse_override(text) for text in arguments.pop("changes"))
    return changes


def sampling(arguments: dict[str, Any]) -> dict[str, Any]:
    """Take the sampling options out of a command's arguments: those that were given, checked by the schema.

    Raises:
        ProfileError: a value breaks its field's rule.
    """
    given: dict[str, Any] = {}
    for option, path in SAMPLING.items():
        value = arguments.pop(_parameter(option))
        if value is not None:
            given[path] = store.parse_override(f"{path}={value}")[1]
    checked: Mapping[str, Any] = store.override(store.resolve("default"), given).model_dump()["engine"]["sampling"]
    options = {path.rpartition(".")[2]: checked[path.rpartition(".")[2]] for path in given}
    for name in ("max_tokens", "seed"):
        value = arguments.pop(name)
        if value is not None:
            options[name] = value
    return options
