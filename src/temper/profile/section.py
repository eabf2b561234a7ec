"""What every part of a profile is made of: the strict base class, and what stands beside a field's type.

Knows no field: those are in `schema`, in `process`, and in `servers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class Tunable:
    """Marks a field that a study may vary."""

    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    choices: tuple[str | int | float | bool, ...] = ()
    restart: bool = False
    """True when a change takes effect only in a new engine process."""


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """Marks a field that names a checkpoint: a version id holds its manifest's hash instead."""


@dataclass(frozen=True, slots=True)
class AdapterFolders:
    """Marks a field that maps names to adapter folders: a version id holds the hashes of their content instead."""


class Section(BaseModel):
    """Base of every part of a profile: immutable, strict about names and types, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
