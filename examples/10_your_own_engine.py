"""An engine of your own: which word follows which, counted in a text.

What it streams, counts, refuses and lets go of are the rules that every engine keeps (tests/conformance/engine.py runs
them over this one), so a load test or a combinator takes it like any other: here two of them share the work.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

from temper.asking import ask
from temper.engines.base import Capabilities, Engine, Health, Stats
from temper.engines.combine.balance import BalanceEngine
from temper.engines.combine.figures import check
from temper.errors import DeadlineExceeded, Draining, Invalid, Unsupported
from temper.profile import schema
from temper.types import Accepted, Delta, Done, Event, Failed, Finished, MadeBy, Request, Started, Usage

TEXT = """The river comes from the hills and the river goes to the sea. The sea gives the rain to the hills. The rain
fills the river and the river fills the sea. In the hills there lived a fox who drank from the river in the rain."""
MAX_STOPS = 64


class NextWord(Engine):
    """Goes on with a word that followed the last one in its text."""

    name = "next-word"

    def __init__(self, text: str = TEXT) -> None:
        self._words = text.split()
        self._followers: dict[str, Counter[str]] = defaultdict(Counter)
        for word, follower in zip(self._words, [*self._words[1:], self._words[0]], strict=True):
            self._followers[word][follower] += 1
        self._is_open = False
        self._num_running = self._num_prompt = self._num_generated = 0

    async def start(self) -> None:
        self._is_open = True

    async def stop(self, drain_s: float = 0.0) -> None:
        self._is_open = False

    def health(self) -> Health:
        return Health(alive=True, ready=self._is_open)

    def capabilities(self) -> Capabilities:
        return Capabilities(model="next-word", seed=True, exactness="batch-invariant")

    def stats(self) -> Stats:
        return Stats(
            num_running=self._num_running,
            prompt_tokens_total=self._num_prompt,
            generation_tokens_total=self._num_generated,
        )

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        words = self._taken(request)
        loop = asyncio.get_running_loop()
        ends = None if request.deadline_s is None else loop.time() + request.deadline_s
        draws = random.Random(request.sampling.seed)
        self._num_running += 1
        try:
            yield Accepted()
            yield Started(len(words))
            self._num_prompt += len(words)
            word, held, reason, matched, num_words = words[-1] if words else "", "", "length", None, 0
            while num_words < (request.limits.max_tokens or 64) and reason == "length":
                await asyncio.sleep(0)  # others want to speak, and may want us to stop
                if ends is not None and loop.time() >= ends:
                    yield Failed(DeadlineExceeded("the deadline passed before the answer was complete"))
                    return
                word = self._next(word, request.sampling.temperature, draws)
                num_words += 1
                self._num_generated += 1
                held += f" {word}"
                found = [(held.index(stop), stop) for stop in request.stop.strings if stop in held]
                if found:
                    at, matched = min(found)
                    held, reason = held[:at], "stop"
                elif word.endswith(".") and not request.stop.ignore_eos:
                    reason = "stop"
                else:
                    safe = len(held) - undecided(held, request.stop.strings)
                    if safe:
                        yield Delta(0, held[:safe])
                    held = held[safe:]
            if held:
                yield Delta(0, held)
            yield Finished(0, reason, matched)
            yield Done(Usage(prompt_tokens=len(words), completion_tokens=num_words), made_by=MadeBy((self.name,)))
        finally:
            self._num_running -= 1

    def _taken(self, request: Request) -> list[str]:
        """The words of the prompt, or a refusal that names the field."""
        if not self._is_open:
            raise Draining("the engine is not started", retry_after_s=1.0)
        check(request, self.capabilities(), self.name)
        if len(request.stop.strings) > MAX_STOPS:
            raise Invalid(f"there may be {MAX_STOPS} stop strings, not {len(request.stop.strings)}", param="stop")
        if request.extensions:
            raise Unsupported(f"'{self.name}' has no extension '{next(iter(request.extensions))}'", param="extensions")
        if request.messages is not None:
            return str(request.messages[-1].content).split()
        if not isinstance(request.prompt, str):
            raise Unsupported(f"'{self.name}' reads text, no token ids", param="prompt")
        return request.prompt.split()

    def _next(self, word: str, temperature: float | None, draws: random.Random) -> str:
        followers = self._followers.get(word) or Counter(self._words)
        if not temperature:
            return followers.most_common(1)[0][0]
        return draws.choices(list(followers), list(followers.values()))[0]


def undecided(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end may be the beginning of a stop string: they are not shown yet."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)


async def main() -> None:
    two = BalanceEngine(schema.BalanceEngine(children=(schema.FakeEngine(),) * 2), engines=[NextWord(), NextWord()])
    await two.start()
    async for event in two.generate(ask("The river", max_tokens=24, temperature=1.0, seed=3)):
        if isinstance(event, Delta):
            print(event.text, end="", flush=True)
        elif isinstance(event, Done):
            print(f"\n({event.usage.completion_tokens} words by {' / '.join(event.made_by.engines)})")
    await two.stop()


if __name__ == "__main__":
    asyncio.run(main())
