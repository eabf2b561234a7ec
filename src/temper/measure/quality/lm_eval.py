"""Any task of lm-eval (the extra `evals`) against a served API, by its own `local-completions`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from temper.errors import EngineFailure, MissingExtra, NotFound

MAX_LENGTH = 1024
"""Longest context that lm-eval builds a prompt for; tokens."""


def run(
    url: str, tasks: Sequence[str], *, model: str, seed: int, limit: int | None, include: Path | None, concurrency: int
) -> dict[str, Any]:
    """lm-eval's results by task; blocks until they are there. `url` ends in `/v1`, `include` holds tasks of one's own.

    Raises:
        MissingExtra: lm-eval is not installed.
        NotFound: it knows no such task.
        EngineFailure: it gave up; most tasks fetch their data from the Hugging Face hub.
    """
    if find_spec("lm_eval") is None or find_spec("tenacity") is None:
        raise MissingExtra("lm-eval's tasks need the package lm-eval", hint="pip install 'temper-llm[evals]'")
    import lm_eval
    from lm_eval.tasks import TaskManager

    known = TaskManager(include_path=str(include), include_defaults=False) if include is not None else None
    if known is None or not set(tasks) <= set(known.all_tasks):
        # All of lm-eval's own tasks are thousands of files to read, so only where they are needed.
        known = TaskManager(include_path=None if include is None else str(include))
    for task in tasks:
        if task not in known.all_tasks:
            raise NotFound(f"lm-eval knows no task '{task}'", param="lm_eval", hint="--lm-eval-tasks names a folder")
    try:
        found = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={
                "base_url": f"{url.rstrip('/')}/completions",
                "model": model,
                "tokenizer_backend": "remote",
                "num_concurrent": concurrency,
                "max_length": MAX_LENGTH,
            },
            tasks=list(tasks),
            task_manager=known,
            limit=limit,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            bootstrap_iters=1000,
        )
    except Exception as error:  # whatever a task, its data set or the hub raises: there is no common type
        raise EngineFailure(f"lm-eval gave up: {type(error).__name__}: {error}") from error
    return {
        "version": lm_eval.__version__,
        "results": found["results"],
        "num_samples": found["n-samples"],
        "seed": seed,
        "limit": limit,
    }
