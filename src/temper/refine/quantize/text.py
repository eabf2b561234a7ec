"""Calibration text: a file of the user's, or what the model itself writes when nobody asks it anything.

A model's own samples cover what it is good at, need no data set, and hold nothing of a test set (compare LLM-QAT, arXiv
2305.17888).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from temper.asking import ask, collect
from temper.engines.base import Engine
from temper.errors import Invalid, NotFound
from temper.models.tokenizer import Tokenizer
from temper.refine.telling import Tell

MAX_TEXT_BYTES = 256 << 20
STREAMS = 16
"""Samples that are written at once."""


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Token ids, and the hash that names them in a manifest."""

    token_ids: Sequence[int]
    sha256: str


def from_file(path: Path, tokenizer: Tokenizer) -> CalibrationText:
    """The tokens of a text file.

    Raises:
        NotFound: it is not there.
        Invalid: it is no UTF-8 text, or too long.
    """
    if not path.is_file():
        raise NotFound(f"there is no text file {path}", param="text", hint="leave it out: the model writes its own")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise Invalid(
            f"calibration text has {MAX_TEXT_BYTES} bytes at most, but {path.name} has {path.stat().st_size}",
            param="text",
            hint="a few hundred kilobytes are enough",
        )
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path.name} must be UTF-8 text: {error}", param="text") from None
    return CalibrationText(tokenizer.encode(text), hashlib.sha256(raw).hexdigest())


async def from_model(engine: Engine, num_tokens: int, window: int, seed: int, tell: Tell) -> CalibrationText:
    """Samples of the model's own, `window` tokens each, from an empty beginning at temperature 1."""
    wanted = -(-num_tokens // window)
    gate = asyncio.Semaphore(STREAMS)
    prompt = await engine.tokenize("") or await engine.tokenize("\n")
    num_written = 0

    async def write(number: int) -> list[int]:
        nonlocal num_written
        request = ask(
            prompt,
            id=f"calibration-{number}",
            max_tokens=window - len(prompt),
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            seed=(seed << 20) + number & 0x7FFFFFFF,
            ignore_eos=True,
        )
        async with gate:
            answer = await collect(engine.generate(request))
        num_written += 1
        tell("writing calibration text", num_written * window, wanted * window)
        return [*prompt, *answer.samples[0].token_ids]

    samples = await asyncio.gather(*(write(number) for number in range(wanted)))
    token_ids = [token for sample in samples for token in sample]
    return CalibrationText(token_ids, hashlib.sha256(",".join(map(str, token_ids)).encode()).hexdigest())
