"""What `--lm-eval` says before lm-eval says anything; `make prove lm_eval` runs a task of its own for real."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from temper.errors import MissingExtra, NotFound
from temper.measure.quality.lm_eval import run

ASKED = {"model": "m", "seed": 1, "limit": 2, "include": None, "concurrency": 1}


def test_the_extra_or_the_task_is_named():
    here = find_spec("lm_eval") is not None and find_spec("tenacity") is not None
    with pytest.raises(NotFound if here else MissingExtra, match="no task 'nothing'" if here else "lm-eval"):
        run("http://127.0.0.1:9/v1", ["nothing"], **ASKED)
