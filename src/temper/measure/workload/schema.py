"""The schema of a workload: who asks what, when, and what is good enough. Files are TOML, strict in every key.

Also the one place that reads workload files and presets. Knows no engine and makes no request; `plan` does.
"""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError

from temper.errors import Invalid, NotFound
from temper.measure.workload.lengths import Fixed, Length, LogNormal
from temper.profile.schema import Section

# -- when --------------------------------------------------------------------------------------------


class Closed(Section):
    """So many users, each of whom asks again as soon as the answer is there."""

    kind: Literal["closed"] = "closed"
    concurrency: int = Field(1, ge=1, le=100_000)


class Open(Section):
    """Requests that come by themselves, whatever the server does: a Poisson process."""

    kind: Literal["open"] = "open"
    rate: float = Field(gt=0, le=1e6)
    """Requests per second (for chats: conversations per second)."""


class Recorded(Section):
    """The timestamps of a trace."""

    kind: Literal["recorded"] = "recorded"
    speed: float = Field(1.0, gt=0)
    """2.0 plays the trace twice as fast."""


Arrivals = Annotated[Closed | Open | Recorded, Field(discriminator="kind")]

# -- what --------------------------------------------------------------------------------------------


class Synthetic(Section):
    """Made-up prompts of drawn lengths, no two alike unless they share a prefix."""

    kind: Literal["synthetic"] = "synthetic"
    input_tokens: Length = Fixed(tokens=128)
    """Whole prompt, shared prefix included."""
    output_tokens: Length = Fixed(tokens=128)
    shared_prefix_tokens: int = Field(0, ge=0)
    """Tokens at the beginning that requests of the same group have in common."""
    num_prefixes: int = Field(1, ge=1)
    """Groups; requests take turns between them."""
    as_chat: bool = False
    """Send one user message under the chat template instead of a bare prompt."""


class Chats(Section):
    """Conversations of several turns: each prompt is the last one and more, as a prefix cache likes it.

    Earlier answers in the history are made up, so that every engine is asked the same.
    """

    kind: Literal["chats"] = "chats"
    turns: Length = Fixed(tokens=4)
    """Questions in a conversation."""
    system_tokens: int = Field(256, ge=0)
    """Length of the system prompt."""
    num_systems: int = Field(1, ge=1)
    """Different system prompts; conversations take turns between them."""
    user_tokens: Length = LogNormal(median=40, sigma=0.8, low=4, high=2048)
    output_tokens: Length = Fixed(tokens=128)
    pause_s: float = Field(0.0, ge=0)
    """How long a user reads before asking on."""


class Mooncake(Section):
    """A trace in Mooncake's shape: JSON lines of `timestamp` (ms), `input_length`, `output_length`, `hash_ids`.

    Requests with the same hash ids get the same blocks of tokens, so prefixes are shared as they were.
    """

    kind: Literal["mooncake"] = "mooncake"
    path: str
    block_tokens: int = Field(512, ge=1)
    """Tokens that one hash id stands for."""
    max_input_tokens: int | None = Field(None, ge=1)
    """Longer prompts are cut to this."""
    max_output_tokens: int | None = Field(None, ge=1)


class ShareGpt(Section):
    """Recorded conversations: `conversations: [{from: human|gpt, value}]` or `messages: [{role, content}]`,
    one JSON list or JSON lines. The history of a turn is what was recorded, not what the engine said.
    """

    kind: Literal["sharegpt"] = "sharegpt"
    path: str
    max_turns: int = Field(8, ge=1)
    max_input_tokens: int | None = Field(None, ge=1)
    """Conversations end before a prompt that looks longer than this (4 characters a token)."""
    max_output_tokens: int = Field(1024, ge=1)


class Questions(Section):
    """Questions of one's own, asked in the order of the file: JSON lines of `{"prompt": "…"}`, or of
    `{"messages": [{role, content}]}` that end with the user's.
    """

    kind: Literal["questions"] = "questions"
    path: str
    output_tokens: Length = Fixed(tokens=512)


Content = Annotated[Synthetic | Chats | Mooncake | ShareGpt | Questions, Field(discriminator="kind")]

# -- and what is good enough -------------------------------------------------------------------------


class Targets(Section):
    """Limits that a request must keep to count as good; None: no limit."""

    ttft_ms: float | None = Field(None, gt=0)
    tpot_ms: float | None = Field(None, gt=0)
    e2e_ms: float | None = Field(None, gt=0)
    percentile: Literal[50, 90, 95, 99] = 99
    """Share of requests, in percent, that must be good for the SLO to be met."""


class Workload(Section):
    """Arrivals, requests and targets."""

    name: str = "custom"
    requests: int = Field(64, ge=1, le=10_000_000)
    """How many are measured."""
    warmup: int = Field(4, ge=0)
    """How many are sent before and not measured."""
    seed: int = 0
    arrivals: Arrivals = Closed()
    content: Content = Synthetic()
    temperature: float = Field(0.0, ge=0, le=5)
    ignore_eos: bool = True
    """Answer to the full length, so that engines do the same work. Engines that cannot are told so."""
    timeout_s: float = Field(600.0, gt=0)
    """A request that takes longer is a failure."""
    slo: Targets = Targets()


# -- files and presets -------------------------------------------------------------------------------

PRESETS = "temper.measure.workload.presets"


def preset_names() -> tuple[str, ...]:
    """Every workload that comes with Temper."""
    files = resources.files(PRESETS).iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def resolve(name: str) -> Workload:
    """The workload called `name`: a preset or a TOML file.

    Raises:
        NotFound: nothing has this name; the hint names the nearest preset.
        Invalid: it breaks the schema; names field, value and rule.
    """
    if name in preset_names():
        return parse((resources.files(PRESETS) / f"{name}.toml").read_text("utf-8"), f"workload '{name}'")
    if not name.endswith(".toml") and "/" not in name:
        near = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"presets: {', '.join(preset_names())}"
        raise NotFound(
            f"no workload is called '{name}'; it is no preset and no .toml file", param="workload", hint=hint
        )
    path = Path(name)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no workload file {path}", param="workload") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read as text: {error}", param="workload") from None
    return parse(text, str(path))


def parse(text: str, source: str = "workload") -> Workload:
    """The workload that TOML `text` describes.

    Raises:
        Invalid: it is no TOML, or breaks the schema.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{source} is not TOML: {error}", param="workload") from None
    return validate(data, source)


def validate(data: Mapping[str, Any], source: str = "workload") -> Workload:
    """The workload that plain `data` describes.

    Raises:
        Invalid: naming every broken field; `param` is the first one's dotted path.
    """
    try:
        return Workload.model_validate(data)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors(include_url=False)]
        raise Invalid(f"{source}: " + "; ".join(text for _, text in problems), param=problems[0][0]) from None


def _problem(item: Any) -> tuple[str, str]:
    """(dotted path, what is wrong in words) of one of pydantic's findings."""
    sections, path = _walk(item["loc"])
    name = ".".join(path)
    if item["type"] == "extra_forbidden":
        known = sorted({field for section in sections for field in section.model_fields})
        near = difflib.get_close_matches(path[-1], known, n=1)
        fix = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
        return name, f"unknown field '{name}'; {fix}"
    if item["type"] == "missing":
        return name, f"'{name}' must be given"
    if item["type"].startswith("union_tag"):
        return f"{name}.kind", f"'{name}.kind' must be one of {item['ctx'].get('expected_tags', 'its kinds')}"
    if item["type"] == "value_error":
        return name, f"'{name}': {item['ctx']['error']}"
    return name, f"'{name}' is {item['input']!r}: {item['msg'].lower()}"


def _walk(location: Sequence[int | str]) -> tuple[list[type[BaseModel]], list[str]]:
    """The sections in which the last part of `location` stands, and its path without the names of union members."""
    sections: list[type[BaseModel]] = [Workload]
    path: list[str] = []
    for depth, part in enumerate(location):
        tagged = [section for section in sections if _kind(section) == part]
        if tagged and len(sections) > 1:
            sections = tagged
            continue
        path.append(str(part))
        field = next((s.model_fields[str(part)] for s in sections if str(part) in s.model_fields), None)
        if field is not None and depth < len(location) - 1:
            sections = _models(field.annotation)
    return sections, path


def _kind(section: type[BaseModel]) -> str | None:
    field = section.model_fields.get("kind")
    return None if field is None else str(field.default)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [model for part in get_args(annotation) for model in _models(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
