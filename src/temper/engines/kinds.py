"""The one table from a profile's `kind` to the code that builds such an engine.

Lazy: naming a kind imports nothing, building one imports its module alone. Other packages add kinds
through the entry point group `temper.engines` (name = kind, value = "module:callable"), so this
package never imports theirs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from temper.engines import NATIVE
from temper.engines.base import Engine
from temper.engines.context import Context as Context
from temper.errors import ProfileError
from temper.profile.schema import NativeEngine, Profile, Section

GROUP = "temper.engines"

BUILT_IN: Mapping[str, str] = {
    "native": "temper.engines.native.remote:WorkerEngine",
    "fake": "temper.engines.fake:FakeEngine",
    "torch": "temper.engines.torch.load:load_engine",
    "openvino": "temper.engines.openvino.load:load_engine",
    "openai": "temper.engines.openai:OpenAIEngine",
    "process": "temper.engines.process:ProcessEngine",
    "balance": "temper.engines.combine.balance:BalanceEngine",
    "split": "temper.engines.combine.split:SplitEngine",
    "route": "temper.engines.combine.route:RouteEngine",
    "cascade": "temper.engines.combine.cascade:CascadeEngine",
    "cached": "temper.engines.combine.cached:CachedEngine",
}

Builder = Callable[[Section, Context], Engine]
"""Makes an engine from its section of the profile. It is not started yet."""


def kinds() -> dict[str, str]:
    """Every known kind and its "module:callable"; those of other packages included, built-ins first."""
    found = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    return found | dict(BUILT_IN)


def build(profile: Profile, *, context: Context) -> Engine:
    """The engine that `profile` describes, not started.

    Raises:
        ProfileError: no package offers this kind, or the one that does is broken.
    """
    return build_section(profile.engine, context)


def build_section(section: Section, context: Context) -> Engine:
    """The engine of one section; combinators build their children with it."""
    kind: str = getattr(section, "kind", "")
    if isinstance(section, NativeEngine) and section.in_process:
        return _load(kind, NATIVE)(section, context)  # the SDK's and the tests' way
    table = BUILT_IN if kind in BUILT_IN else kinds()
    if kind not in table:
        near = difflib.get_close_matches(kind, table, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known kinds: {', '.join(sorted(table))}"
        raise ProfileError(f"no engine of kind '{kind}' is installed", param="engine.kind", hint=hint)
    return _load(kind, table[kind])(section, context)


def _load(kind: str, target: str) -> Builder:
    module, _, name = target.partition(":")
    try:
        return cast(Builder, getattr(import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise ProfileError(
            f"the engine kind '{kind}' cannot be loaded from '{target}': {error}",
            param="engine.kind",
            hint="reinstall the package that offers it",
        ) from error
