"""The main function of a process that trains along: `python -m temper.refine.train.peer`, started by `gloo.together`.

Reads one line of JSON from standard input, trains, writes nothing but its own state, and ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from temper.refine.train.gloo import GlooPeers
from temper.refine.train.job import train_along
from temper.refine.train.recipe import TrainRecipe


def main() -> None:
    """Train along with the process that started this one."""
    said = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    recipe = TrainRecipe.model_validate(said["recipe"])

    def meet() -> GlooPeers:
        return GlooPeers(said["rank"], said["size"], Path(said["folder"]), recipe)

    train_along(recipe, Path(said["beside"]), Path(said["cache_dir"]), meet)


def _leave_with_parent() -> None:
    while os.read(0, 4096):  # past Python's buffers, whose locks would keep this process from ending
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
