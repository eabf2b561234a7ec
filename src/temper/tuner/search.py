"""The search of a study: what is known so far, what is tried next, and who deserves to be confirmed.

Everything that happens to the world goes through `measuring`, which looks into the ledger first. Every decision here is
a function of measurements and of the seed, so a study that is run again after a kill is the undisturbed one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from temper.errors import EngineFailure
from temper.tuner import effects, racing
from temper.tuner.evaluate import Block, Evaluator, Kind, Slot, Trouble
from temper.tuner.ledger import Ledger
from temper.tuner.measuring import Measuring
from temper.tuner.model import Model
from temper.tuner.objective import Goal, share_of
from temper.tuner.plan import ANSWER_METRICS
from temper.tuner.quality import quality_excess
from temper.tuner.settings import Settings
from temper.tuner.space import Branch, Point, Space
from temper.tuner.study import Proposals, keyed
from temper.tuner.trial import Arm, Pair, Trial, gain_of

SEARCH_SHARE = 0.65
"""Of a budget in time; the rest is for confirming."""
CALIBRATION_REQUESTS = 8
VALUES_BEYOND = 2
"""Values that a block should have beyond the percentile that is the objective."""
LONGER = 3
"""Most times longer that a block gets for it."""
LEAST_UNITS = 4
HOPELESS_AFTER = 3
POLISH_FROM = 0.7
"""Part of the search after which steps around the leader are tried: a model of many knobs finds the region of the
best point sooner than the point."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a study is, for whoever watches."""

    stage: str
    done: float
    """0 to 1."""
    text: str


Tell = Callable[[Progress], None]


@dataclass(slots=True)
class Search:
    """One study under way, up to its finalists; `run` takes it to its end. Made anew to resume; see the module."""

    id: str
    space: Space
    goal: Goal
    settings: Settings
    evaluator: Evaluator
    ledger: Ledger
    model: Model | None = None
    with_quality: bool = False
    """A suite is there to ask."""
    tell: Tell = lambda progress: None
    trials: list[Trial] = field(default_factory=list)
    self_test: list[float] = field(default_factory=list)
    """Gains of the incumbent against itself, one a unit."""
    world: Measuring = field(init=False)
    _noise: float = racing.FIRST_NOISE
    _unit_s: float = 0.0

    def __post_init__(self) -> None:
        objective, incumbent = self.goal.objective, self.space.incumbent
        self.world = Measuring(
            self.id, self.evaluator, self.ledger, incumbent, objective, self.kind, self.settings.seed
        )

    # -- what is known -----------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        """How the objective is measured."""
        return "quality" if self.goal.objective.metric in ANSWER_METRICS else "load"

    @property
    def length_bound(self) -> float | None:
        """The largest shift of answer lengths, a log-ratio; None where answers are what is tuned."""
        return None if self.kind == "quality" else math.log1p(self.settings.length_margin)

    def feasible(self) -> list[Trial]:
        """Trials within everything that was asked, best first."""
        found = [trial for trial in self.trials if trial.is_feasible(self.goal, self.length_bound)]
        return sorted(found, key=lambda trial: (-(trial.gain or 0.0), trial.number))

    @property
    def noise(self) -> float:
        """Standard deviation of one pair's gain, as far as repeats have told."""
        return self._noise

    # -- stages ------------------------------------------------------------------------------------------

    async def calibrate(self) -> None:
        """How many requests make a block long enough to mean something."""
        self.world.requests = self.settings.block_requests
        if self.kind == "quality":
            self.world.requests = self.settings.quality_items
        if self.world.requests is not None:
            return
        self.tell_stage("calibrate", 0.0, "how long a block of load is")
        block = await self.world.incumbent(
            "calibrate", keyed(self.settings.seed, "calibrate"), count=CALIBRATION_REQUESTS
        )
        rate = CALIBRATION_REQUESTS / max(block.seconds, 1e-3)
        wanted = rate * self.settings.block_s
        tail = share_of(self.goal.objective.metric)
        if tail is not None:  # a percentile of too few values is their largest
            wanted = max(wanted, min(VALUES_BEYOND / tail, LONGER * wanted))
        self.world.requests = max(CALIBRATION_REQUESTS, round(wanted))

    async def test_itself(self) -> None:
        """The incumbent against itself, started anew for each unit: what differs is noise."""
        units: list[list[tuple[Pair, float]]] = []
        before_s = self.world.spent_s
        for number in range(self.settings.self_test_units):
            self.tell_stage("self-test", number / self.settings.self_test_units, "the incumbent against itself")
            unit = await self.world.unit(f"self-test/{number}", self.space.incumbent)
            if isinstance(unit, Trouble):
                raise EngineFailure(f"the incumbent cannot be measured: {unit.kind}: {unit.reason}")
            units.append(unit)
            self.self_test.append(statistics.fmean(gain for _, gain in unit))
        self._unit_s = (self.world.spent_s - before_s) / max(1, len(units))
        # Over all units: between starts there is noise that pairs inside one start do not show.
        self._noise = racing.noise([[gain for unit in units for _, gain in unit]])
        first = Trial(0, "incumbent", self.space.incumbent, gains=[0.0], reason="what is there now")
        first.pairs = [unit[0][0] for unit in units]
        self._learn(first)
        self.trials.append(first)
        self._write(first)

    async def trying(self) -> AsyncIterator[Trial]:
        """Trial after trial, each written down, until the budget or the space is used up."""
        proposals = Proposals(self.space, self.settings.seed)
        number = 1
        while self._may_go_on(number):
            chosen = self._next(proposals, number)
            if chosen is None:
                return
            trial = Trial(number, *chosen)
            await self._try(trial)
            self.trials.append(trial)
            self._write(trial)
            self.tell_stage("search", self._searched(), self._best_text())
            yield trial
            number += 1

    def _next(self, proposals: Proposals, number: int) -> tuple[Arm, Point] | None:
        seen = {trial.point.key for trial in self.trials}
        settings = self.settings
        is_control = settings.sampler == "control" or number <= settings.startup or number % settings.control_every == 0
        num_control = sum(trial.arm == "control" for trial in self.trials)
        if not is_control and self._searched() >= POLISH_FROM and (moved := self._beside_leader(seen)) is not None:
            return "polish", moved
        if not is_control:
            told = [trial.told(self.goal, self.length_bound) for trial in self.trials]
            within = self._shared_start()
            points = proposals.modelled(number, told, seen, within, self._is_hopeless)
            if not points and within is not None:  # the hot knobs of that start are all tried
                points = proposals.modelled(number, told, seen, None, self._is_hopeless)
            if points:
                return "tpe", self._most_promising(points)
        point = proposals.control(num_control, seen)
        return None if point is None else ("control", point)

    def _beside_leader(self, seen: set[str]) -> Point | None:
        """The most promising new point one step from the leader; None while the incumbent leads, or all are tried."""
        leaders = self.feasible()
        if not leaders or leaders[0].arm == "incumbent":
            return None
        branch = self.space.branch(leaders[0].point.branch)
        around = effects.neighbours(branch, leaders[0].point, self._effects(branch))
        return next((point for point in around if point.key not in seen and not self._is_hopeless(point)), None)

    def _most_promising(self, points: Sequence[Point]) -> Point:
        """Of the sampler's proposals the one that the additive model expects most of: with a dozen trials a density
        over whole points knows less than what each knob did alone. What breaks a limit counts as no gain."""
        gains = [
            (trial.point, trial.gain if trial.is_feasible(self.goal, self.length_bound) else min(trial.gain, 0.0))
            for trial in self.trials
            if trial.gain is not None
        ]
        branches = {point.branch: self.space.branch(point.branch) for point in points}
        found = {name: effects.fit(branch, gains) for name, branch in branches.items()}
        return max(points, key=lambda point: found[point.branch].predicted(branches[point.branch], point))

    def _effects(self, branch: Branch) -> effects.Effects:
        return effects.fit(branch, [(trial.point, trial.gain) for trial in self.trials if trial.gain is not None])

    def _is_hopeless(self, point: Point) -> bool:
        """Whether it has a value that was trouble whenever it was tried, `HOPELESS_AFTER` times or more."""
        for path, value in point.values:
            same = [trial for trial in self.trials if (path, value) in trial.point.values]
            if len(same) >= HOPELESS_AFTER and all(trial.trouble is not None for trial in same):
                return True
        return False

    def _shared_start(self) -> Point | None:
        """The point whose engine the next trial should share: the last one's, while starting is what costs."""
        last = self.trials[-1]
        if last.arm == "incumbent" or last.trouble is not None or not last.pairs:
            return None
        branch = self.space.branch(last.point.branch)
        if all(knob.restart for knob in branch.knobs):
            return None
        cold, num_shared = self.space.cold_part(last.point), 0
        for trial in reversed(self.trials):
            if trial.arm == "incumbent" or self.space.cold_part(trial.point) != cold:
                break
            num_shared += 1
        start_s = max(pair.candidate.start_s for trial in self.trials for pair in trial.pairs)
        block_s = statistics.median(pair.candidate.seconds for trial in self.trials for pair in trial.pairs)
        return last.point if num_shared < self.settings.hot_per_start and start_s > block_s else None

    async def _try(self, trial: Trial) -> None:
        """Race one point against the incumbent and the best so far."""
        if self._is_pruned(trial):
            return
        leaders = self.feasible() if trial.arm != "simpler" else []
        leader = leaders[0] if leaders else None
        best = None if leader is None or leader.gain is None else racing.Standing(leader.gain, len(leader.gains))
        for number in range(self.settings.most_pairs):
            pair = await self.world.pair(f"trial-{trial.number}/{number}", trial.point, flip=bool(number % 2))
            trial.pairs.append(pair)
            if pair.candidate.trouble is not None:
                trial.state, trial.trouble = "trouble", pair.candidate.trouble
                trial.reason = f"{trial.trouble.kind}: {trial.trouble.reason}"
                trial.gains.clear()
                return
            gain = gain_of(pair, self.goal.objective)
            if gain is None:
                trial.state, trial.reason = "trouble", f"no figure for {self.goal.objective.metric}"
                trial.trouble = Trouble("failures", trial.reason)
                return
            trial.gains.append(gain)
            self._noise = racing.noise([other.gains for other in (*self.trials, trial)] + [self.self_test])
            if racing.is_beaten(trial.gains, best, self._noise):
                trial.state, trial.reason = "beaten", f"behind after {len(trial.gains)} pair(s)"
                break
        else:
            trial.reason = f"measured in {len(trial.gains)} pairs"
        self._learn(trial)
        await self._ask_for_quality(trial, leader)

    def _is_pruned(self, trial: Trial) -> bool:
        """Whether the model says that it need not be started. The control arm is only spared what cannot fit."""
        if self.model is None:
            return False
        reason = self.model.unfit(trial.point)
        if reason is not None:
            trial.trouble = Trouble("unfit", reason)
        elif trial.arm == "tpe" and self.goal.objective.metric == "output_tokens_per_s":
            leaders = self.feasible()
            reason = self.model.is_far_behind(trial.point, (leaders[0].gain or 0.0) if leaders else 0.0)
        if reason is None:
            return False
        trial.state, trial.reason = "pruned", f"not started: {reason}"
        return True

    def _learn(self, trial: Trial) -> None:
        if self.model is not None:
            for pair in trial.pairs[:1]:
                self.model.learn(trial.point, pair.candidate)

    async def _ask_for_quality(self, trial: Trial, leader: Trial | None) -> None:
        """Quality is dear, so only a point that would take the lead is asked; one that hurts it loses the lead."""
        takes_lead = trial.gain is not None and trial.gain > max(0.0, leader.gain or 0.0 if leader else 0.0)
        if takes_lead and trial.is_feasible(self.goal, self.length_bound):
            await self._measure_quality(trial)

    async def _measure_quality(self, trial: Trial) -> None:
        """Ask the suite, once a point; write down how far it is below the floor."""
        if self.kind == "quality" or not self.with_quality or trial.quality is not None:
            return
        asked = await self._quality("quality/incumbent", self.space.incumbent, "incumbent")
        found = await self._quality(f"quality/{trial.number}", trial.point, "candidate")
        if asked.trouble is not None:
            raise EngineFailure(f"the incumbent's quality cannot be measured: {asked.trouble.reason}")
        if found.trouble is not None:
            trial.state, trial.trouble = "trouble", found.trouble
            trial.reason = f"{found.trouble.kind}: {found.trouble.reason}"
            return
        trial.quality = quality_excess(asked, found, self.goal.quality_margin)
        trial.pairs[-1] = replace(
            trial.pairs[-1],
            candidate=replace(
                trial.pairs[-1].candidate, figures={**trial.pairs[-1].candidate.figures, **_quality_of(found)}
            ),
        )
        if trial.quality > 0:
            trial.reason = (
                f"quality {found.figures['quality']:.3f} against {asked.figures['quality']:.3f} of the incumbent is "
                f"below the floor"
            )
        self._write(trial)

    async def _quality(self, key: str, point: Point, slot: Slot) -> Block:
        """The search's own items, the same for all points."""
        seed = keyed(self.settings.seed, "quality")
        return await self.world.quality(key, point, slot, seed, self.settings.quality_items)

    async def finalists(self) -> tuple[list[Trial], int]:
        """Who shall be confirmed, best first, and in how many units."""
        await self._simplify()
        worthy = [trial for trial in self.feasible() if trial.arm != "incumbent" and self._deserves_confirming(trial)]
        worthy.sort(key=lambda trial: trial.arm != "simpler")  # it took the leader's place
        units, num_finalists = self._affordable(len(worthy))
        chosen: list[Trial] = []
        for trial in worthy:  # who never led was never asked for quality
            await self._measure_quality(trial)
            if trial.is_feasible(self.goal, self.length_bound):
                chosen.append(trial)
            if len(chosen) == num_finalists:
                break
        return chosen, units

    async def _simplify(self) -> None:
        """Try the leader without the changes that seem to do nothing: a proposal should not carry what came along.

        Where that is as good as noise can tell, the leader leaves the race to it.
        """
        leaders = self.feasible()
        if not leaders or leaders[0].arm == "incumbent":
            return
        leader = leaders[0]
        branch = self.space.branch(leader.point.branch)
        point = effects.simpler(branch, leader.point, self._effects(branch), threshold=self._noise / 2)
        if any(point == trial.point for trial in self.trials):
            return
        self.tell_stage("simplify", 1.0, f"trial {leader.number} without what seems to do nothing")
        trial = Trial(len(self.trials), "simpler", point)
        await self._try(trial)
        self.trials.append(trial)
        if racing.is_as_good(trial.gains, leader.gains, self._noise) and trial.is_feasible(
            self.goal, self.length_bound
        ):
            trial.state = "complete"
            leader.state, leader.reason = "beaten", f"trial {trial.number} is as good with fewer changes"
            self._write(leader)
        self._write(trial)

    def _deserves_confirming(self, trial: Trial) -> bool:
        """Still in the race, and better than what is there or within limits that what is there breaks."""
        if trial.state != "complete":
            return False
        return (trial.gain or 0.0) > 0 or not self.trials[0].is_feasible(self.goal, self.length_bound)

    def _affordable(self, num_chosen: int) -> tuple[int, int]:
        """(units, finalists) that the rest of the budget pays for."""
        settings = self.settings
        finalists = min(settings.finalists, num_chosen)
        if settings.budget.seconds is None or not finalists:
            return settings.units, finalists
        left = settings.budget.seconds - self.world.spent_s
        while finalists > 1 and left < finalists * LEAST_UNITS * self._unit_s:
            finalists -= 1
        affordable = int(left / max(1e-9, finalists * self._unit_s))
        return max(LEAST_UNITS, min(2 * settings.units, affordable)), finalists

    # -- budget and progress -----------------------------------------------------------------------------

    def _may_go_on(self, number: int) -> bool:
        budget = self.settings.budget
        if budget.trials is not None:
            return number <= budget.trials
        assert budget.seconds is not None
        return self.world.spent_s < SEARCH_SHARE * budget.seconds

    def _searched(self) -> float:
        budget = self.settings.budget
        if budget.trials is not None:
            return (len(self.trials) - 1) / budget.trials
        assert budget.seconds is not None
        return min(1.0, self.world.spent_s / (SEARCH_SHARE * budget.seconds))

    def _best_text(self) -> str:
        best = next(iter(self.feasible()), None)
        if best is None:
            return "nothing within the limits yet"
        objective = self.goal.objective
        return f"best {objective.metric} {objective.effect(best.gain or 0.0):+.1%} (trial {best.number})"

    def _write(self, trial: Trial) -> None:
        self.ledger.put_trial(self.id, trial.number, trial.document(self.goal, self.length_bound))

    def tell_stage(self, stage: str, done: float, text: str) -> None:
        """Say where the study is."""
        self.tell(Progress(stage, done, text))


def _quality_of(block: Block) -> dict[str, float]:
    return {name: value for name, value in block.figures.items() if name in ANSWER_METRICS}
