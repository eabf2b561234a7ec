"""Which parts of the section may change while the engine runs, and how its adapters do.

Knows fields by name, and nothing of how an engine computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper.engines.base import Engine
    from temper.profile.schema import PagedEngine

_HOT_SECTIONS = frozenset({"admission", "sampling", "reasoning", "guard", "adapters", "lora"})
_HOT_FIELDS = {"kv": frozenset({"prefix_cache", "evict_above"}), "batching": frozenset({"max_step_tokens"})}


def differs_only_hot(old: PagedEngine, new: PagedEngine, built_step_tokens: int) -> bool:
    """True when going from `old` to `new` needs no restart.

    `built_step_tokens` is what the executor's buffers hold: a step may become smaller than that, not larger.
    """
    return new.batching.max_step_tokens <= built_step_tokens and _cold(old) == _cold(new)


def declared_adapters(section: object) -> Mapping[str, str]:
    """The adapters that a section names: name → source. None for kinds of engine that take none."""
    found: Mapping[str, str] = getattr(section, "adapters", {})
    return found


async def change_adapters(engine: Engine, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Load what is new or has another source, then unload what is named no longer. Requests that run go on.

    Raises:
        Invalid, NotFound, CheckpointError: as `Engine.load_adapter`; adapters before it may have been loaded then.
    """
    for name, source in after.items():
        if before.get(name) != source:
            await engine.load_adapter(name, source, replace=True)
    for name in before:
        if name not in after and name in engine.capabilities().adapters:
            await engine.unload_adapter(name, wait=False)


def _cold(section: PagedEngine) -> dict[str, Any]:
    """The fields of a section that need a restart."""
    cold = {name: value for name, value in vars(section).items() if name not in _HOT_SECTIONS}
    for part, hot in _HOT_FIELDS.items():
        cold[part] = {name: value for name, value in vars(cold[part]).items() if name not in hot}
    return cold
