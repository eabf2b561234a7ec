"""What the fake engine plays: texts by name. What goes wrong with them is said in `faults`.

A script is written `TEXT[:ARGUMENT][+FAULT…]`, such as `echo`, `count:40`, `words+stall@20`; see `docs/fake.md`. Both
tables are open: `@script("name")` adds a text, `@fault("name")` a failure. A script only says what shall come out and
what shall go wrong before which token; time, admission and bookkeeping are the engine's.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from temper.engines.fake.words import split, text_of
from temper.errors import TemperError
from temper.types import Request, Usage

Fault = Literal["stall", "crash", "vanish"] | float | TemperError
"""`stall`: no token ever again. `crash`: the whole engine dies. `vanish`: the stream just ends, against the rules.
A number: silence for so many milliseconds. An error: this stream breaks with it."""


@dataclass(frozen=True, slots=True)
class Script:
    """One sample, as it shall come out."""

    pieces: Iterable[bytes]
    """Tokens of the raw text, tags included. The end of text follows the last one; may be endless."""
    opened: bool = False
    """The prompt already opened the thinking, as R1's template does."""
    refuse: TemperError | None = None
    """Raised before the first event."""
    faults: Mapping[int, Fault] = field(default_factory=dict)
    """What goes wrong before token number i."""
    gap_ms: float | Callable[[], float] | None = None
    """Pace between tokens instead of the profile's; a function draws each gap."""
    first_ms: float | None = None
    """Time to the first token instead of the profile's."""
    leak_bytes: int = 0
    """Memory that this request takes and the engine never gives back."""
    bend_usage: Callable[[Usage], Usage] | None = None
    """Makes the counts at the end wrong."""


Writer = Callable[[Request, str, int], Script]
"""Writes the script of (request, argument, sample index)."""

SCRIPTS: dict[str, Writer] = {}


def script(name: str) -> Callable[[Writer], Writer]:
    """Add a text to the table."""

    def add(writer: Writer) -> Writer:
        SCRIPTS[name] = writer
        return writer

    return add


def asked(request: Request) -> str:
    """What the caller said last: the prompt, or the newest user message."""
    if isinstance(request.prompt, str):
        return request.prompt
    if request.prompt is not None:
        return text_of(request.prompt)
    said = [m.content or "" for m in request.messages or () if m.role == "user"]
    return said[-1] if said else ""


# -- texts -----------------------------------------------------------------------------------------


@script("echo")
def _echo(request: Request, argument: str, sample: int) -> Script:
    """Says what it was asked."""
    return Script(split(asked(request)))


@script("fixed")
def _fixed(request: Request, argument: str, sample: int) -> Script:
    """Says its argument."""
    return Script(split(argument))


@script("pieces")
def _pieces(request: Request, argument: str, sample: int) -> Script:
    """Says its argument in exactly the tokens between the bars: `pieces:<th|ink>a</thi|nk>b`."""
    return Script([piece.encode() for piece in argument.split("|") if piece])


@script("opened")
def _opened(request: Request, argument: str, sample: int) -> Script:
    """Like `pieces`, after a prompt that opened the thinking."""
    return Script([piece.encode() for piece in argument.split("|") if piece], opened=True)


@script("count")
def _count(request: Request, argument: str, sample: int) -> Script:
    """Counts from 1, one number a token: to its argument, or until the limit."""
    return Script(numbers(int(argument) if argument else None))


def numbers(last: int | None = None) -> Iterator[bytes]:
    """1, 2, 3, … as tokens, without end where `last` is None."""
    for number in itertools.count(1) if last is None else range(1, last + 1):
        yield f"{'' if number == 1 else ' '}{number}".encode()


@script("words")
def _words(request: Request, argument: str, sample: int) -> Script:
    """Random words without end, decided by the request's seed, the sample and the position alone."""
    return Script(_random_words(request.sampling.seed or 0, sample))


def _random_words(seed: int, sample: int) -> Iterator[bytes]:
    for position in itertools.count():
        draw = random.Random(f"{seed}/{sample}/{position}")
        yield (" " + "".join(draw.choices("aeioubdfgklmnprst", k=4))).encode()


@script("think")
def _think(request: Request, argument: str, sample: int) -> Script:
    """Thinks as R1 does, with `<think>` opened in the prompt, then repeats the question as its answer."""
    answer = asked(request)
    if request.thinking.enabled is False:
        return Script(split(answer))
    thought = f"The question is: {answer}\nI shall repeat it.\n"
    return Script([*split(thought), b"</think>", b"\n\n", *split(answer)], opened=True)
