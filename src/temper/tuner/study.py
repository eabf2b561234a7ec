"""Proposals: the only home of Optuna.

Optuna holds nothing that lasts. For each proposal its study is made anew from the trials in the ledger, with a sampler
seeded from (study seed, trial number), since the random state of Optuna's samplers is stored nowhere: so a resumed
study proposes what the undisturbed one would have. The control arm is a scrambled Sobol sequence, which needs no
history at all.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from scipy.stats import qmc

from temper.tuner.space import Branch, Knob, Point, Space, Value

BRANCH = "branch"
STARTUP_TRIALS = 8
"""Trials that TPE wants to have seen before it models anything."""
ATTEMPTS = 16
"""Draws before a sampler that only repeats itself gives way to the control arm."""
PROPOSED = 8
"""Points among which a trial is chosen."""


@dataclass(frozen=True, slots=True)
class Told:
    """What Optuna is told of one trial."""

    point: Point
    loss: float
    """Smaller is better: minus the gain."""
    constraints: Mapping[str, float]
    """At most 0 where kept."""


class Proposals:
    """Proposes the next point of a study from what is known so far; holds no state of its own."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed
        # Log output of a library in the middle of our progress bar helps nobody.
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def modelled(
        self,
        number: int,
        told: Sequence[Told],
        seen: Collection[str],
        within: Point | None,
        hopeless: Callable[[Point], bool] = lambda point: False,
    ) -> list[Point]:
        """TPE's proposals for trial `number`, none among `seen` keys; empty when it finds no new one.

        A `hopeless` point is drawn again: TPE smooths over a ladder, so it goes on to knock at what lies beside a good
        value.
        With `within`, the cold knobs stay as they are in that point: a change that needs no restart.
        """
        study = self._study(told, keyed(self._seed, "tpe", number), within)
        found: dict[str, Point] = {}
        for _ in range(ATTEMPTS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                point = self._asked(study.ask())
            if point.key not in seen and not hopeless(point):
                found[point.key] = point
            if len(found) == PROPOSED:
                break
        return list(found.values())

    def control(self, index: int, seen: Collection[str]) -> Point | None:
        """Point number `index` of the Sobol sequence, or the first one after it that is not seen; None: all are."""
        return next(iter(self.controls(index, 1, seen)), None)

    def controls(self, index: int, count: int, seen: Collection[str]) -> list[Point]:
        """`count` new points of the Sobol sequence from number `index` on; fewer when the space has no more."""
        sampler = qmc.Sobol(self._space.num_dimensions, scramble=True, rng=keyed(self._seed, "control"))
        if index:
            sampler.fast_forward(index)
        found: dict[str, Point] = {}
        num_drawn = 1 << (max(64, 4 * count) - 1).bit_length()  # a power of two keeps the sequence balanced
        for row in sampler.random(num_drawn):
            point = self._space.at([float(value) for value in row])
            if point.key not in seen and point.key not in found:
                found[point.key] = point
                if len(found) == count:
                    break
        else:
            if self._space.size <= 65536:  # a small space that is nearly used up: whatever is left, in its order
                left = (point for point in self._space.grid() if point.key not in seen and point.key not in found)
                for point in left:
                    found[point.key] = point
                    if len(found) == count:
                        break
        return list(found.values())

    def _study(self, told: Sequence[Told], seed: int, within: Point | None) -> optuna.Study:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            several = len(self._space.branches) > 1
            sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=several, n_startup_trials=STARTUP_TRIALS
            )
            if within is not None:
                sampler = optuna.samplers.PartialFixedSampler(self._fixed(within), sampler)
            study = optuna.create_study(sampler=sampler, direction="minimize")
            study.add_trials([self._frozen(item) for item in told])
        return study

    def _frozen(self, item: Told) -> optuna.trial.FrozenTrial:
        branch = self._space.branch(item.point.branch)
        params: dict[str, Value] = {}
        distributions: dict[str, BaseDistribution] = {}
        if len(self._space.branches) > 1:
            params[BRANCH] = branch.name
            distributions[BRANCH] = self._branches()
        for knob, (_, value) in zip(branch.knobs, item.point.values, strict=True):
            name = _name(branch, knob)
            params[name] = knob.values.index(value)
            distributions[name] = _distribution(knob)
        return optuna.trial.create_trial(
            value=item.loss, params=params, distributions=distributions, constraints=dict(item.constraints)
        )

    def _asked(self, trial: optuna.Trial) -> Point:
        branches = self._space.branches
        name = branches[0].name
        if len(branches) > 1:
            name = str(trial.suggest_categorical(BRANCH, [branch.name for branch in branches]))
        branch = self._space.branch(name)
        return Point(name, tuple((knob.path, knob.values[_suggested(trial, branch, knob)]) for knob in branch.knobs))

    def _fixed(self, within: Point) -> dict[str, Value]:
        branch = self._space.branch(within.branch)
        fixed: dict[str, Value] = {BRANCH: branch.name} if len(self._space.branches) > 1 else {}
        for knob, (_, value) in zip(branch.knobs, within.values, strict=True):
            if knob.restart:
                fixed[_name(branch, knob)] = knob.values.index(value)
        return fixed

    def _branches(self) -> CategoricalDistribution:
        return CategoricalDistribution([branch.name for branch in self._space.branches])


def keyed(*parts: object) -> int:
    """A seed that depends on nothing but `parts`."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def _name(branch: Branch, knob: Knob) -> str:
    return f"{branch.name}/{knob.path}"


def _distribution(knob: Knob) -> BaseDistribution:
    """Places on the ladder: in order where neighbours are alike, else one by one."""
    places = len(knob.values)
    return IntDistribution(0, places - 1) if knob.ordered else CategoricalDistribution(list(range(places)))


def _suggested(trial: optuna.Trial, branch: Branch, knob: Knob) -> int:
    name, places = _name(branch, knob), len(knob.values)
    if knob.ordered:
        return trial.suggest_int(name, 0, places - 1)
    return int(trial.suggest_categorical(name, list(range(places))))
