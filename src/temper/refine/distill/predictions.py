"""What the teacher predicts at every target, asked once through an engine and kept on disk.

The engine is ours and quick at reading; a student then learns from files, and a second run asks nothing. Files are
named after the teacher and the examples, so that predictions never meet another text than their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from temper.engines.base import Engine
from temper.errors import MalformedFile
from temper.refine.distill.losses import TOP_IDS, TOP_LOGPROBS
from temper.refine.telling import Tell
from temper.refine.train.examples import Example

PER_FILE: Final = 256
"""Examples whose predictions are written together: what a kill loses at most."""
AT_ONCE: Final = 8
"""Examples that the engine is asked to read at a time."""
FLOOR: Final = -60.0
"""Lowest log-probability that is kept: float16 reaches further, but nothing is learned from it."""


async def with_predictions(
    engine: Engine, teacher_hash: str, examples: Sequence[Example], top_k: int, folder: Path, tell: Tell
) -> list[Example]:
    """The examples with the teacher's `top_k` log-probabilities at every target as extras.

    `engine` serves the teacher and is started. Log-probabilities are those at temperature 1, in float16.

    Raises:
        Unsupported: the engine does not score.
        ContextTooLong: an example is longer than its context.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Example] = []
    for begin in range(0, len(examples), PER_FILE):
        part = examples[begin : begin + PER_FILE]
        path = folder / f"{_key(teacher_hash, part, top_k)}.safetensors"
        if not path.is_file():
            await _ask(engine, part, top_k, path, lambda done, base=begin: tell(
                "asking the teacher", base + done, len(examples)))  # fmt: skip
        found += _read(path, part)
        tell("asking the teacher", begin + len(part), len(examples))
    return found


async def _ask(engine: Engine, examples: Sequence[Example], top_k: int, path: Path, tell: Any) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    num_done = 0

    async def one(example: Example) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
        nonlocal num_done
        async with gate:
            scores = await engine.score([int(token) for token in example.token_ids], top_k)
        rows = np.flatnonzero(example.learned) - 1  # row i tells of token i + 1
        assert scores.top_ids is not None
        num_done += 1
        tell(num_done)
        return scores.top_ids[rows], np.maximum(scores.top_logprobs[rows], FLOOR).astype(np.float16)

    answers = await asyncio.gather(*(one(example) for example in examples))
    tensors = {
        TOP_IDS: np.concatenate([ids for ids, _ in answers]),
        TOP_LOGPROBS: np.concatenate([logprobs for _, logprobs in answers]),
    }
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, part, {"format": "np"})
    part.replace(path)


def _read(path: Path, examples: Sequence[Example]) -> list[Example]:
    ends = np.cumsum([example.num_targets for example in examples])
    try:
        tensors = load_file(path)
        ids, logprobs = tensors[TOP_IDS], tensors[TOP_LOGPROBS]
        if not len(ids) == len(logprobs) == ends[-1]:
            raise ValueError(f"{len(ids)} targets, but the examples have {ends[-1]}")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise MalformedFile(f"the teacher's predictions in '{path}' cannot be read: {str(error)[:200]}",
                            hint="remove the file: they are asked for again") from error  # fmt: skip
    return [
        replace(example, extras={TOP_IDS: part_ids, TOP_LOGPROBS: part_logprobs})
        for example, part_ids, part_logprobs in zip(
            examples, np.split(ids, ends[:-1]), np.split(logprobs, ends[:-1]), strict=True
        )
    ]


def _key(teacher_hash: str, examples: Sequence[Example], top_k: int) -> str:
    digest = hashlib.sha256(json.dumps([teacher_hash, top_k]).encode())
    for example in examples:
        digest.update(example.token_ids.tobytes() + example.learned.tobytes())
    return digest.hexdigest()[:32]
