"""End-to-end recipes that come with Temper, as TOML beside this file."""

from __future__ import annotations

from importlib.resources import files

from temper.errors import NotFound
from temper.profile.presets import nearest


def course_names() -> tuple[str, ...]:
    """Sorted."""
    entries = files(__package__).iterdir()
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml")))


def course_text(name: str) -> str:
    """The TOML of one.

    Raises:
        NotFound: none has this name; the hint names the nearest.
    """
    if name not in course_names():
        raise NotFound(f"no recipe is called '{name}'", param="recipe", hint=nearest(name, course_names()))
    return files(__package__).joinpath(f"{name}.toml").read_text("utf-8")
