"""A section of a profile without its schema: how it crosses to a worker.

The API process has checked it. Checking it again would cost the worker pydantic and the schema, which take longer to
import than all that it computes with. So it gets the values alone, under the same names.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from temper.profile.native import NativeEngine as NativeSection


_MAPPINGS = frozenset({"adapters"})
"""Fields that are mappings themselves, whose names the user chose."""


def values_of(section: NativeSection) -> dict[str, Any]:
    """The section as mappings of plain values."""
    return section.model_dump()


def section_of(values: dict[str, Any]) -> NativeSection:
    """The section that reads like the one `values` came from: same names, same values, no schema behind them."""
    return cast("NativeSection", _named(values))


def _named(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return SimpleNamespace(**{k: inner if k in _MAPPINGS else _named(inner) for k, inner in value.items()})
