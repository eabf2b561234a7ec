"""What can go wrong with the fake engine, by name, and the little language in which it is said.

    SCRIPT = TEXT[:ARGUMENT] [+FAULT]…   or   FAULT[+FAULT]…   (then the text is `count`)
    FAULT  = NAME[@TOKEN][:ARGUMENT][%PERCENT]

`words+stall@20` says twenty random words, then nothing for ever; `error-503%30` refuses three requests of ten, always
the same ones under the same seed. A fault changes a script; it knows no time and no engine.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from temper.engines.fake.scripts import SCRIPTS, Fault, Script, Writer, numbers
from temper.errors import (
    DeadlineExceeded,
    Draining,
    EngineDied,
    EngineFailure,
    Invalid,
    OutOfMemory,
    ProfileError,
    QueueFull,
    TemperError,
)
from temper.types import Request, Usage

FIRST_TROUBLE = 3
"""The token before which a fault strikes that names none."""

Damage = Callable[[Script, "Planned", random.Random], Script]
"""Changes a script; the dice are the request's own."""

FAULTS: dict[str, Damage] = {}

_FAULT = re.compile(
    r"(?P<name>[a-z][a-z0-9-]*?)(?:@(?P<at>\d+))?(?::(?P<argument>.*?))?(?:%(?P<percent>\d+(?:\.\d+)?))?$"
)


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault as it was written."""

    name: str
    at: int | None
    argument: str
    percent: float

    @property
    def token(self) -> int:
        """The token before which it strikes. `stall:20` says the same as `stall@20`."""
        if self.at is not None:
            return self.at
        return int(self.argument) if self.argument.isdigit() else FIRST_TROUBLE

    def number(self, default: float) -> float:
        """The argument as a number.

        Raises:
            ProfileError: it is none.
        """
        if not self.argument:
            return default
        try:
            value = float(self.argument)
        except ValueError:
            raise _wrong(f"the argument of '{self.name}' is a number, but is '{self.argument}'") from None
        if not 0 <= value < 1e12:
            raise _wrong(f"the argument of '{self.name}' is {self.argument}, allowed is 0 to 1e12")
        return value


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole script: who writes the text, and what befalls it."""

    write: Writer
    argument: str
    faults: tuple[Planned, ...]

    def script(self, request: Request, sample: int, seed: int, arrival: int) -> Script:
        """The script of one sample of the request that came as number `arrival`.

        Whether a fault with a percentage strikes depends on the seed, the arrival and the fault alone.
        """
        found = self.write(request, self.argument, sample)
        for place, fault in enumerate(self.faults):
            dice = random.Random(f"{seed}/{arrival}/{place}/{fault.name}")
            if dice.random() * 100 < fault.percent:
                found = FAULTS[fault.name](found, fault, dice)
        return found


def find(text: str) -> Plan:
    """The plan that `text` describes.

    Raises:
        ProfileError: a name is unknown, or an argument is not what it should be.
    """
    known = "|".join(sorted(map(re.escape, FAULTS), key=len, reverse=True))
    # A plus sign may stand in a text: it begins a fault only where the name of one follows.
    head, *rest = re.split(rf"\+(?=(?:{known})(?:[@:%+]|$))", text)
    name, _, argument = head.partition(":")
    if name in SCRIPTS:
        plan = Plan(SCRIPTS[name], argument, tuple(map(_planned, rest)))
    elif re.split("[@:%]", head)[0] in FAULTS:
        plan = Plan(_count, "", tuple(map(_planned, (head, *rest))))
    else:
        raise ProfileError(
            f"the fake engine has no script '{re.split('[@:%+]', head)[0]}'",
            param="engine.script",
            hint=f"it has: {', '.join((*SCRIPTS, *FAULTS))}",
        )
    for fault in plan.faults:
        FAULTS[fault.name](Script(()), fault, random.Random(0))  # says now what is wrong with an argument
    return plan


def _count(request: Request, argument: str, sample: int) -> Script:
    return Script(numbers())


def _planned(text: str) -> Planned:
    found = _FAULT.match(text)
    if found is None or found["name"] not in FAULTS:
        raise _wrong(f"a fault is written NAME[@TOKEN][:ARGUMENT][%PERCENT], but is '{text}'")
    percent = float(found["percent"] or 100)
    if percent > 100:
        raise _wrong(f"'{text}' would strike {percent:g} % of the requests; 100 is the most")
    return Planned(found["name"], int(found["at"]) if found["at"] else None, found["argument"] or "", percent)


def _wrong(message: str) -> ProfileError:
    return ProfileError(message, param="engine.script", hint="see docs/fake.md")


def fault(*names: str) -> Callable[[Damage], Damage]:
    """Add a failure to the table."""

    def add(damage: Damage) -> Damage:
        FAULTS.update(dict.fromkeys(names, damage))
        return damage

    return add


def _strikes(script: Script, token: int, what: Fault) -> Script:
    return replace(script, faults={**script.faults, token: what})


# -- streams that go wrong ---------------------------------------------------------------------------


@fault("stall")
def _stall(script: Script, fault: Planned, dice: random.Random) -> Script:
    """Nothing more is said; with an argument in milliseconds beside `@TOKEN`, for so long."""
    pause = fault.number(0) if fault.at is not None else 0
    return _strikes(script, fault.token, pause or "stall")


@fault("cut")
def _cut(script: Script, fault: Planned, dice: random.Random) -> Script:
    """The stream breaks off with an error."""
    return _strikes(script, fault.token, EngineFailure("the fake engine cut this stream"))


@fault("vanish")
def _vanish(script: Script, fault: Planned, dice: random.Random) -> Script:
    """The stream just ends, without `Done` or `Failed`: what no engine may do."""
    return _strikes(script, fault.token, "vanish")


@fault("crash")
def _crash(script: Script, fault: Planned, dice: random.Random) -> Script:
    """The engine dies under everybody, and comes back."""
    return _strikes(script, fault.token, "crash")


@fault("garbage")
def _garbage(script: Script, fault: Planned, dice: random.Random) -> Script:
    """From some token on, noise: bytes that are no text, control characters, half tags."""
    return replace(script, pieces=_noise(script.pieces, fault.token, dice.random()))


def _noise(pieces: Iterable[bytes], after: int, seed: float) -> Iterator[bytes]:
    yield from itertools.islice(pieces, after)
    dice = random.Random(seed)
    while True:
        yield dice.choice((dice.randbytes(4), b"\x00\x1b[2J", b"\xf0\x9f", b"</th", b'{"a":', b"\xe2\x80\xae"))


@fault("empty")
def _empty(script: Script, fault: Planned, dice: random.Random) -> Script:
    """Nothing is said, and that is called an answer."""
    return replace(script, pieces=())


@fault("wrong-usage")
def _wrong_usage(script: Script, fault: Planned, dice: random.Random) -> Script:
    """The counts at the end are ten times what they should be (or its argument times)."""
    times = fault.number(10)
    return replace(script, bend_usage=lambda usage: _times(usage, times))


def _times(usage: Usage, times: float) -> Usage:
    return Usage(*(int(getattr(usage, name) * times) for name in Usage.__slots__))


# -- time ------------------------------------------------------------------------------------------


@fault("slow")
def _slow(script: Script, fault: Planned, dice: random.Random) -> Script:
    """Half a second (or its argument in milliseconds) between tokens."""
    return replace(script, gap_ms=fault.number(500))


@fault("slow-start")
def _slow_start(script: Script, fault: Planned, dice: random.Random) -> Script:
    """Two seconds (or its argument in milliseconds) before the first token."""
    return replace(script, first_ms=fault.number(2000))


@fault("ttft")
def _ttft(script: Script, fault: Planned, dice: random.Random) -> Script:
    """The time to the first token is drawn from a distribution, in milliseconds: `ttft:lognormal(200,0.5)`."""
    return replace(script, first_ms=_drawn(fault)(dice))


@fault("itl")
def _itl(script: Script, fault: Planned, dice: random.Random) -> Script:
    """Each gap between tokens is drawn from a distribution, in milliseconds: `itl:exponential(20)`."""
    draw = _drawn(fault)
    return replace(script, gap_ms=lambda: draw(dice))


_DISTRIBUTIONS: dict[str, tuple[int, Callable[..., float]]] = {
    "constant": (1, lambda dice, value: value),
    "uniform": (2, lambda dice, low, high: dice.uniform(low, high)),
    "exponential": (1, lambda dice, mean: dice.expovariate(1 / mean) if mean else 0.0),
    "lognormal": (2, lambda dice, median, sigma: median * dice.lognormvariate(0, sigma)),
    "pareto": (2, lambda dice, least, shape: least * dice.paretovariate(shape)),
}
"""How many parameters each takes, and how it is drawn: constant(ms), uniform(low,high), exponential(mean),
lognormal(median,sigma), pareto(least,shape)."""


def _drawn(fault: Planned) -> Callable[[random.Random], float]:
    found = re.fullmatch(r"([a-z]+)\(([\d.,\s]*)\)", fault.argument)
    if found is None or found[1] not in _DISTRIBUTIONS:
        raise _wrong(
            f"'{fault.name}' takes one of {', '.join(_DISTRIBUTIONS)} with its parameters, such as "
            f"{fault.name}:exponential(20), but is given '{fault.argument}'"
        )
    count, draw = _DISTRIBUTIONS[found[1]]
    try:
        values = [float(text) for text in found[2].split(",")]
    except ValueError:
        values = []
    if len(values) != count or (found[1] == "pareto" and values[1] == 0):
        raise _wrong(f"{found[1]} takes {count} numbers, but is given '{found[2]}'")
    return lambda dice: draw(dice, *values)


# -- refusals and worse ------------------------------------------------------------------------------


def _refusal(code: int, seconds: float) -> TemperError | None:
    """What a status before the first byte stands for; None: one that comes after the request was taken."""
    if code == 400:
        return Invalid("the fake engine refuses this request", param="prompt")
    if code == 429:
        return QueueFull("the fake engine's line is full", retry_after_s=seconds)
    return Draining("the fake engine takes nothing now", retry_after_s=seconds) if code == 503 else None


_BROKEN: dict[int, TemperError] = {
    500: EngineFailure("the fake engine failed"),
    502: EngineDied("what the fake engine stands for is gone"),
    504: DeadlineExceeded("the fake engine took too long", param="deadline_s"),
    507: OutOfMemory("the fake engine has no memory for this"),
}


@fault("error-400", "error-429", "error-503", "error-500", "error-502", "error-504", "error-507")
def _error(script: Script, fault: Planned, dice: random.Random) -> Script:
    """400, 429, 503: refuses (429 and 503 say to come back after its argument in seconds). 500, 502, 504, 507: takes
    the request, then breaks before the first token."""
    code = int(fault.name.removeprefix("error-"))
    refusal = _refusal(code, fault.number(1))
    return replace(script, refuse=refusal) if refusal is not None else _strikes(script, 0, _BROKEN[code])


@fault("leak")
def _leak(script: Script, fault: Planned, dice: random.Random) -> Script:
    """Each request takes a million bytes (or its argument) that never come back, up to a gigabyte in all."""
    return replace(script, leak_bytes=int(fault.number(1e6)))
