"""What prompts are made of: symbols, and their two renderings as token ids or as words.

A prompt is planned as symbols (numbers below 256). An engine that lets us tokenize gets them as token ids, so
that lengths are exact; any other gets one common English word per symbol, each a single token in most
vocabularies. Random words are no language: what depends on meaning (speculation, early ends) needs a real trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from temper.engines.base import Engine
from temper.errors import Invalid

_WORDS = """
time year people way day man thing woman life child world school state family student group country problem hand part
place case week company system program question work government number night point home water room mother area money
story fact month lot right study book eye job word business issue side kind head house service friend father power
hour game line end member law car city community name president team minute idea body information back parent face
others level office door health person art war history party result change morning reason research girl guy moment air
teacher force education foot boy age policy process music market sense nation plan college interest death experience
effect use class control field development role effort rate heart drug show leader light voice wife police mind price
report decision son view relationship town road arm difference value building action season society tax director
position player record paper space ground form event official matter center couple site project activity star table
need court oil situation cost industry figure street image phone data picture practice piece land product doctor wall
patient worker news test movie north love support technology step baby computer type attention film tree source
organization hair look century evidence window culture chance brother energy period course summer plant opportunity
term letter condition choice rule south husband floor campaign material population call economy hospital church risk
fire future bank west sport board subject officer rest behavior performance fight top goal bed order author blood
agency nature color store sound movement page
"""
WORDS: tuple[str, ...] = tuple(_WORDS.split())
NUM_SYMBOLS = len(WORDS)
_UNIQUE_SYMBOLS = 3
"""Symbols at a prompt's beginning that no other prompt of the same seed has: 256³ prompts."""


@dataclass(frozen=True, slots=True)
class Wording:
    """Renders symbols for one engine: as `ids[symbol]`, or as words where there are no ids."""

    ids: tuple[int, ...] | None = None

    def prompt(self, symbols: Sequence[int]) -> str | tuple[int, ...]:
        """A prompt to continue."""
        if self.ids is not None:
            ids = self.ids
            return tuple([ids[symbol] for symbol in symbols])
        return self.text(symbols)

    def text(self, symbols: Sequence[int]) -> str:
        """The same symbols as words."""
        return " ".join([WORDS[symbol] for symbol in symbols])


async def wording_for(engine: Engine) -> Wording:
    """Token ids where `engine` can tell them, else words."""
    if not engine.capabilities().tokenize:
        return Wording()
    ids = await engine.tokenize(" " + " ".join(WORDS), add_special_tokens=False)
    distinct = tuple(dict.fromkeys(ids))
    return Wording(distinct[:NUM_SYMBOLS]) if len(distinct) >= NUM_SYMBOLS else Wording()


def shared(seed: int, label: str, length: int) -> list[int]:
    """Symbols that everybody who asks for this `label` gets."""
    return Random(f"{seed}/shared/{label}").choices(range(NUM_SYMBOLS), k=length)


def unique(seed: int, index: int, length: int) -> list[int]:
    """Symbols of prompt number `index`, which differ from those of every other index in the first three.

    Raises:
        Invalid: so short that not every index can have its own.
    """
    digits = min(length, _UNIQUE_SYMBOLS)
    room = NUM_SYMBOLS**digits
    if index >= room:
        raise Invalid(
            f"only {room} prompts of {length} token(s) differ, but number {index + 1} is asked for",
            param="input_tokens",
            hint="use longer prompts or fewer requests",
        )
    number = index ^ Random(f"{seed}/unique").randrange(room)
    head = [(number >> (8 * place)) % NUM_SYMBOLS for place in range(digits)]
    return head + Random(f"{seed}/prompt/{index}").choices(range(NUM_SYMBOLS), k=length - digits)
