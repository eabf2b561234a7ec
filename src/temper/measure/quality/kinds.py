"""The one lazy table from a suite's name to what makes it: whatever a suite needs is imported when it is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from temper.engines.base import Engine
from temper.errors import Invalid, NotFound
from temper.measure.quality.suite import Probe, Suite

_GENERATORS = "temper.measure.quality.generators"


@dataclass(frozen=True, slots=True)
class Needs:
    """What some suites are made of; each takes what it needs."""

    engine: Engine | None = None
    """The one that is judged, started."""
    against: Engine | None = None
    """Another that it is compared with, started."""
    pairs: Path | None = None
    """A file of prompts and reference texts."""
    allow_weaker_isolation: bool = False
    """Run what models write even where Landlock or seccomp is missing."""

    def both(self, suite: str) -> tuple[Engine, Engine]:
        """The engine, and the one that it is compared with."""
        if self.engine is None or self.against is None:
            raise Invalid(
                f"the suite '{suite}' compares an engine with another one", param="against", hint="name it: --against"
            )
        return self.engine, self.against


Make = Callable[[Needs], Suite | Probe]


@dataclass(frozen=True, slots=True)
class Kind:
    """One suite that can be asked for by name."""

    about: str
    make: Make
    generated: bool = False
    """Its items are drawn afresh from the seed, as many as are asked for."""
    compares: bool = False
    """It needs another engine to compare with."""


def _generated(name: str, home: str, function: str = "question") -> Make:
    def make(needs: Needs) -> Suite:
        from temper.measure.quality.check import Check
        from temper.measure.quality.generated import GeneratedSuite

        check = Check(allow_weaker_isolation=needs.allow_weaker_isolation)
        return GeneratedSuite(name, getattr(import_module(f"{_GENERATORS}.{home}"), function), check=check)

    return make


def _chinese(needs: Needs) -> Suite:
    from temper.measure.quality.generated import FORM_ZH, GeneratedSuite
    from temper.measure.quality.generators import words

    return GeneratedSuite("words_zh", words.chinese, FORM_ZH)


def _adversarial(name: str) -> Make:
    def make(needs: Needs) -> Suite:
        from temper.measure.quality.adversarial import AdversarialSuite

        suite = KINDS[name].make(needs)
        assert not isinstance(suite, Probe)
        return AdversarialSuite(suite)

    return make


def _algebra(needs: Needs) -> Suite:
    from temper.measure.quality.generated import VerifiedSuite
    from temper.measure.quality.generators import algebra

    return VerifiedSuite("algebra", algebra.question)


def _humaneval(needs: Needs) -> Suite:
    from temper.measure.quality.humaneval import HumanEvalSuite

    return HumanEvalSuite(allow_weaker_isolation=needs.allow_weaker_isolation)


def _writing(needs: Needs) -> Suite:
    from temper.measure.quality.writing import WritingSuite

    return WritingSuite(logprobs=needs.engine is not None and needs.engine.capabilities().logprobs)


def _overlap(needs: Needs) -> Suite:
    from temper.measure.quality.overlap import OverlapSuite

    return OverlapSuite(needs.pairs)


def _perplexity(needs: Needs) -> Probe:
    from temper.measure.quality.likelihood import PerplexitySuite

    return PerplexitySuite()


def _kl(needs: Needs) -> Probe:
    from temper.measure.quality.likelihood import DivergenceSuite

    engine, against = needs.both("kl")
    return DivergenceSuite(against, engine)


def _agreement(needs: Needs) -> Probe:
    from temper.measure.quality.agreement import AgreementSuite

    return AgreementSuite(needs.both("agreement")[1])


KINDS: dict[str, Kind] = {
    "arithmetic": Kind("sums of whole numbers", _generated("arithmetic", "arithmetic"), generated=True),
    "words": Kind("word problems of one to three steps", _generated("words", "words", "english"), generated=True),
    "words_zh": Kind("the same word problems in Chinese", _chinese, generated=True),
    "logic": Kind("orders, syllogisms and Boolean expressions", _generated("logic", "logic"), generated=True),
    "arithmetic_adversarial": Kind(
        "the same sums, mistyped or with a sentence that distracts", _adversarial("arithmetic"), generated=True
    ),
    "words_adversarial": Kind(
        "the same word problems, mistyped or with a sentence that distracts", _adversarial("words"), generated=True
    ),
    "sequences": Kind("the next number of a sequence", _generated("sequences", "sequences"), generated=True),
    "units": Kind("conversions of units", _generated("units", "units"), generated=True),
    "algebra": Kind("expressions, verified by computer algebra", _algebra, generated=True),
    "finance": Kind("interest, margins, present value, invoices", _generated("finance", "finance"), generated=True),
    "medicine": Kind("doses, infusions, scores, rules", _generated("medicine", "medicine"), generated=True),
    "manufacturing": Kind(
        "takt, yield, capability, stock", _generated("manufacturing", "manufacturing"), generated=True
    ),
    "service": Kind("queues, policies, refunds, messages", _generated("service", "service"), generated=True),
    "code": Kind(
        "what programs print, functions to write; run in the sandbox", _generated("code", "code"), generated=True
    ),
    "humaneval": Kind("Python functions, run against their tests in the sandbox", _humaneval),
    "writing": Kind("stories: repetition, diversity, cohesion, surprise", _writing, generated=True),
    "overlap": Kind("BLEU and ROUGE against reference texts", _overlap, generated=True),
    "perplexity": Kind("how well the text that comes with Temper is predicted", _perplexity),
    "kl": Kind("divergence of the predictions from another engine's", _kl, compares=True),
    "agreement": Kind("whether it says what another engine says, greedily", _agreement, compares=True),
}
"""Name: what it asks, and what makes it."""


def find(name: str, needs: Needs | None = None) -> Suite | Probe:
    """The suite called `name`.

    Raises:
        NotFound: there is none; the hint names the nearest.
        MissingExtra: it needs a package that is not installed.
        Invalid: it needs another engine to compare with.
        Unsupported: it must run programs, and the sandbox cannot hold them here.
    """
    if name not in KINDS:
        close = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(KINDS)}"
        raise NotFound(f"there is no suite '{name}'", param="suite", hint=hint)
    return KINDS[name].make(needs or Needs())
