"""The confirmation: finalists on fresh seeds against the incumbent, and everything that a winner must pass.

What won a search won partly by luck (the winner's curse), so nothing that the search measured counts here. A finalist
is proposed when it is better on the objective and not worse on quality, answer lengths, failures and every limit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from temper.errors import EngineFailure
from temper.measure.quality.compare import compare
from temper.measure.stats.noninferiority import holm
from temper.measure.stats.power import pairs_needed
from temper.measure.stats.verdict import Outcome, Verdict, overall
from temper.tuner import judging
from temper.tuner.evaluate import Block, Trouble
from temper.tuner.quality import metric_of, report_of
from temper.tuner.search import Search
from temper.tuner.study import keyed
from temper.tuner.trial import Pair, Trial, length_shift

POWER = 0.9
LEAST_ITEMS = 60


@dataclass(slots=True)
class Finalist:
    """A trial that was confirmed, or was not."""

    trial: Trial
    units: list[list[Pair]] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    """One a unit."""
    trouble: Trouble | None = None
    target: Verdict | None = None
    guardrails: tuple[Verdict, ...] = ()
    rescues: bool = False
    """The incumbent breaks a limit that this one keeps: that is the gain, whatever the objective says."""

    @property
    def outcome(self) -> Outcome:
        """Pass: may be proposed."""
        if self.trouble is not None or self.target is None:
            return "fail"
        if self.rescues:
            guards = {guardrail.verdict for guardrail in self.guardrails}
            return "fail" if "fail" in guards else "inconclusive" if "inconclusive" in guards else "pass"
        return overall(self.target, self.guardrails)

    @property
    def gain(self) -> float:
        """Mean log-ratio of the confirmation."""
        return statistics.fmean(self.gains) if self.gains else 0.0


async def confirm(search: Search, chosen: Sequence[Trial], units: int) -> list[Finalist]:
    """Measure `chosen` anew, unit by unit in turns, and judge them together."""
    finalists = [Finalist(trial) for trial in chosen]
    total = units * len(finalists)
    for unit in range(units):
        for place, finalist in enumerate(finalists):
            if finalist.trouble is not None:
                continue
            done = (unit * len(finalists) + place) / total
            search.tell_stage("confirm", done, f"trial {finalist.trial.number}, start {unit + 1} of {units}")
            found = await search.world.unit(f"confirm-{finalist.trial.number}/{unit}", finalist.trial.point)
            if isinstance(found, Trouble):
                finalist.trouble = found
                continue
            finalist.units.append([pair for pair, _ in found])
            finalist.gains.append(statistics.fmean(gain for _, gain in found))
    count = max([_items_needed(search, finalist) for finalist in finalists], default=0)
    quality = {
        id(finalist): await _quality(search, finalist, count) for finalist in finalists if finalist.trouble is None
    }
    alpha = search.settings.alpha
    p_values = {
        str(finalist.trial.number): judging.p_value(finalist.gains) if finalist.trouble is None else 1.0
        for finalist in finalists
    }
    for finalist, adjusted in zip(finalists, holm(p_values).values(), strict=True):
        proven = adjusted <= alpha
        finalist.target = judging.superiority(search.goal.objective, finalist.gains, proven=proven, alpha=alpha)
        if finalist.trouble is None:
            finalist.guardrails = _guardrails(search, finalist, quality[id(finalist)])
            finalist.rescues = _rescues(search, finalist)
    return _in_order(finalists)


def _in_order(finalists: Sequence[Finalist]) -> list[Finalist]:
    """The largest gain first; before it the one with fewer changes, where it is as good as the starts can tell."""
    found = sorted(finalists, key=lambda finalist: -finalist.gain)
    fewer = next((finalist for finalist in found if finalist.trial.arm == "simpler"), None)
    if fewer is None or fewer is found[0]:
        return found
    behind = [other - mine for mine, other in zip(fewer.gains, found[0].gains, strict=False)]
    if len(behind) > 1 and statistics.fmean(behind) <= statistics.stdev(behind) / math.sqrt(len(behind)):
        return [fewer, *(finalist for finalist in found if finalist is not fewer)]
    return found


def _items_needed(search: Search, finalist: Finalist) -> int:
    """Items that tell an equal quality from one below the floor with power 0.9, by what the search's items varied.

    They are other items than those of the confirmation, so planning by them costs no error.
    """
    most = search.settings.confirm_items
    before, after = (search.world.seen(f"quality/{side}") for side in ("incumbent", finalist.trial.number))
    if before is None or after is None:
        return most
    differences = [after.scores[item] - score for item, score in before.scores.items() if item in after.scores]
    metric = metric_of(before)
    margin = metric.margin if search.goal.quality_margin is None else search.goal.quality_margin
    if len(differences) < 2 or margin <= 0:
        return most
    spread = max(statistics.stdev(differences), 1 / len(differences))
    return max(LEAST_ITEMS, min(most, pairs_needed(margin, spread, POWER, search.settings.alpha, 1)))


async def _quality(search: Search, finalist: Finalist, count: int) -> Verdict | None:
    """Non-inferiority of the finalist's answers on items that nobody has seen; None without a suite."""
    if not search.with_quality:
        return None
    seed = keyed(search.settings.seed, "confirm-quality")
    search.tell_stage("confirm", 1.0, f"quality of trial {finalist.trial.number}")
    incumbent, key = search.space.incumbent, f"confirm/quality/{finalist.trial.number}"
    before = await search.world.quality("confirm/quality/incumbent", incumbent, "incumbent", seed, count)
    after = await search.world.quality(key, finalist.trial.point, "candidate", seed, count)
    if before.trouble is not None:
        raise EngineFailure(f"the incumbent's quality cannot be measured: {before.trouble.reason}")
    if after.trouble is not None:
        finalist.trouble = after.trouble
        return None
    return compare(
        report_of(before), report_of(after), margin=search.goal.quality_margin, confidence=1 - 2 * search.settings.alpha
    )


def _guardrails(search: Search, finalist: Finalist, quality: Verdict | None) -> tuple[Verdict, ...]:
    settings, alpha = search.settings, search.settings.alpha
    pairs = [pair for unit in finalist.units for pair in unit]
    found = [] if quality is None else [quality]
    if search.length_bound is not None:
        shifts = [[shift for pair in unit if (shift := length_shift(pair)) is not None] for unit in finalist.units]
        ratios = [statistics.fmean(unit) for unit in shifts if unit]
        if ratios:
            found.append(judging.same_length(ratios, settings.length_margin, alpha))
    sides = [[pair.candidate for pair in pairs], [pair.incumbent for pair in pairs]]
    counts = [(sum(b.num_failed for b in side), sum(b.num_requests for b in side)) for side in sides]
    found.append(judging.failures(counts[0], counts[1], settings.failure_margin, 1 - alpha))
    found += [_limit_verdict(search, limit_index, sides[0]) for limit_index in range(len(search.goal.limits))]
    return tuple(found)


def _limit_verdict(search: Search, index: int, blocks: Sequence[Block]) -> Verdict:
    limit = search.goal.limits[index]
    counts = [block.misses.get(limit.name, (0, 0)) for block in blocks]
    values = [block.figures[limit.metric] for block in blocks if limit.metric in block.figures]
    return judging.within(
        limit, sum(hits for hits, _ in counts), sum(total for _, total in counts), values, search.settings.alpha
    )


def _rescues(search: Search, finalist: Finalist) -> bool:
    incumbents = [pair.incumbent for unit in finalist.units for pair in unit]
    return any(_limit_verdict(search, index, incumbents).verdict == "fail" for index in range(len(search.goal.limits)))
