"""Evaluators without engines: a recorded grid replayed, or an invented machine with planted trouble.

For rehearsing a study before it costs an hour, and for proving what a study does a thousand times over. Both answer
at once and count the seconds that the real thing would have taken.
"""

from __future__ import annotations

import asyncio
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Annotated, Any

from pydantic import Field, ValidationError

from temper.errors import Invalid, NotFound
from temper.measure.quality.suite import Metric
from temper.profile.section import Section
from temper.tuner.evaluate import TROUBLES, Block, Task, Trouble, block
from temper.tuner.objective import METRICS
from temper.tuner.plan import ANSWER_METRICS
from temper.tuner.space import Point, Value, fits

SUITE = "invented"


class RecordedEvaluator:
    """Plays a recording: JSON lines of `point`, `pass`, `candidate`, `incumbent`, each pair measured together.

    A seed picks the pass; both sides of a pair get blocks of the same one, so the noise of a replay is the noise that
    was there, what both sides share of it included.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]], name: str = "recording") -> None:
        self._name = name
        self._pairs: dict[str, list[Mapping[str, Any]]] = {}
        for line in lines:
            self._pairs.setdefault(str(line["point"]), []).append(line)

    async def measure(self, task: Task) -> Block:
        """The recorded block of a task; a point that was not recorded is refused."""
        of = task.point if task.beside is None else task.beside
        there = self._pairs.get(of.key)
        if there is None:
            return Block(trouble=Trouble("refused", f"{of.key} is not in {self._name}"))
        return block(there[Random(f"{task.seed}/{of.key}").randrange(len(there))][task.slot])

    def describe(self) -> Mapping[str, Any]:
        """What is played."""
        return {"evaluator": "recorded", "recording": self._name, "points": len(self._pairs)}

    async def close(self) -> None:
        """Nothing runs."""


class Effect(Section):
    """What one value of one knob does."""

    knob: str
    """Path of the field, or its end."""
    value: str | int | float | bool | None = None
    """The value that does it; None with `power`: all of them."""
    metric: str | None = None
    """The figure that changes; None with `trouble`."""
    factor: float = Field(1.0, gt=0)
    """What it is multiplied by."""
    power: float | None = None
    """In place of `value` and `factor`: the figure is multiplied by (value / incumbent's value) to this power."""
    trouble: str | None = None
    """The point cannot be measured: a word of `evaluate.TROUBLES`."""


class Scenario(Section):
    """An invented machine."""

    name: str = "scenario"
    figures: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: {"output_tokens_per_s": 100.0})
    """What the incumbent's blocks show without noise; `quality` is the chance of a right answer."""
    effects: tuple[Effect, ...] = Field((), strict=False)
    noise: float = Field(0.03, ge=0)
    """Standard deviation of the log of a block's figures."""
    start_noise: float = Field(0.01, ge=0)
    """The same between starts of an engine."""
    drift: float = Field(0.1, ge=0)
    """The same of what both sides of a pair share: the machine's hour."""
    block_s: float = Field(5.0, gt=0)
    start_s: float = Field(2.0, ge=0)
    requests: int = Field(64, ge=1)
    """In a block."""
    pause_s: float = Field(0.0, ge=0)
    """How long a block really takes, for whoever wants to watch, or to pull the plug."""


def scenario(text: str, source: str = "scenario") -> Scenario:
    """The scenario that TOML `text` describes.

    Raises:
        Invalid: it is no TOML, breaks the schema, or names what is not there.
    """
    try:
        found = Scenario.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise Invalid(f"{source}: {error}", param="rehearse") from None
    known = {*METRICS, "answer_tokens", "duration_s"}
    for name in (*found.figures, *(effect.metric for effect in found.effects if effect.metric is not None)):
        if name not in known:
            raise Invalid(f"{source}: '{name}' is no figure", param="rehearse", hint=f"there are {', '.join(METRICS)}")
    for effect in found.effects:
        if effect.trouble is not None and effect.trouble not in TROUBLES:
            raise Invalid(f"{source}: '{effect.trouble}' is no trouble", param="rehearse", hint=f"say {list(TROUBLES)}")
    return found


class InventedEvaluator:
    """Measures an invented machine. All is drawn from the task's seed and point: the same task, the same block."""

    def __init__(self, machine: Scenario, incumbent: Point, seed: int = 0) -> None:
        self._machine, self._incumbent, self._seed = machine, incumbent, seed
        self._up: dict[str, str] = {}
        """By slot: which start of which point is up."""

    async def measure(self, task: Task) -> Block:
        """One block, in no time or in `pause_s`."""
        machine = self._machine
        await asyncio.sleep(machine.pause_s)
        trouble = self._trouble(task.point)
        if trouble is not None:
            return Block(trouble=trouble, start_s=machine.start_s)
        start = self._start(task)
        truth = self._truth(task.point)
        if task.kind == "quality":
            return self._asked(task, truth, start)
        drift = Random(f"{self._seed}/drift/{task.seed}").gauss(0.0, machine.drift)
        level = Random(f"{self._seed}/start/{start}").gauss(0.0, machine.start_noise)
        own = Random(f"{self._seed}/block/{task.key}/{task.point.key}/{task.seed}")
        slow = drift + level + own.gauss(0.0, machine.noise)
        shown = {}
        for name, value in truth.items():
            if name in ANSWER_METRICS:
                continue
            better = METRICS.get(name, ("higher", ""))[0]
            if name in ("answer_tokens", "rss_bytes"):
                shown[name] = value * math.exp(own.gauss(0.0, 0.2 * machine.noise))
            else:
                shown[name] = value * math.exp(-slow if better == "higher" else slow)
        count = task.count or machine.requests
        return Block(
            figures=shown,
            num_requests=count,
            seconds=machine.block_s,
            start_s=machine.start_s if self._is_new(task, start) else 0.0,
            misses={},
        )

    def describe(self) -> Mapping[str, Any]:
        """The machine that was invented."""
        return {"evaluator": "invented", "scenario": self._machine.model_dump(mode="json")}

    async def close(self) -> None:
        """Nothing runs."""

    def _truth(self, point: Point) -> dict[str, float]:
        found = dict(self._machine.figures)
        for effect in self._machine.effects:
            if effect.metric is None:
                continue
            value = self._value(point, effect.knob)
            if effect.power is not None:
                before = self._value(self._incumbent, effect.knob)
                if _is_number(value) and _is_number(before):
                    ratio = float(value) / float(before)  # type: ignore[arg-type]
                    found[effect.metric] = found.get(effect.metric, 1.0) * ratio**effect.power
            elif value == effect.value:
                found[effect.metric] = found.get(effect.metric, 1.0) * effect.factor
        return found

    def _trouble(self, point: Point) -> Trouble | None:
        for effect in self._machine.effects:
            if effect.trouble is not None and self._value(point, effect.knob) == effect.value:
                return Trouble(effect.trouble, f"planted at {effect.knob} = {effect.value}")
        return None

    def _asked(self, task: Task, truth: Mapping[str, float], start: str) -> Block:
        """Items right or wrong with the point's chance; the same items are hard for everybody."""
        chance = min(1.0, truth.get("quality", 1.0))
        scores = {}
        for item in range(task.count or 64):
            hard = Random(f"{self._seed}/item/{task.seed}/{item}").random()
            luck = Random(f"{self._seed}/luck/{task.seed}/{item}/{task.point.key}").random()
            # Nine parts of ten of an answer are the item's, one is luck: paired items agree more than chance has it.
            scores[str(item)] = float(0.9 * hard + 0.1 * luck < chance)
        right = sum(scores.values())
        found = {"quality": right / len(scores)}
        if right:
            found["cost_per_correct"] = truth.get("cost_per_correct", 1.0) / found["quality"]
        metric = Metric("right", "share of right answers", kind="share")
        return Block(
            figures=found,
            num_requests=len(scores),
            seconds=self._machine.block_s,
            start_s=self._machine.start_s if self._is_new(task, start) else 0.0,
            scores=scores,
            details={"suite": SUITE, "metric": asdict(metric), "seed": task.seed},
        )

    def _start(self, task: Task) -> str:
        """Names the engine start that a task runs in. Follows from the task alone, so a resumed study has the same."""
        place = task.key.rsplit("/", 2)[0] if task.kind == "load" else task.key
        return f"{place}/{task.slot}/{task.point.key}"

    def _is_new(self, task: Task, start: str) -> bool:
        """Whether a task pays for a start: the first block of a trial or of a unit, on the candidate's side."""
        return task.fresh or (task.slot == "candidate" and task.key.rsplit("/", 2)[-2:-1] == ["0"])

    def _value(self, point: Point, knob: str) -> Value:
        return next((value for path, value in point.values if fits(path, knob)), None)


def recording(path: Path) -> RecordedEvaluator:
    """The evaluator of a recorded grid.

    Raises:
        NotFound: there is no such file.
        Invalid: a line is no recorded pair.
    """
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        return RecordedEvaluator(lines, path.name)
    except FileNotFoundError:
        raise NotFound(f"there is no recording {path}", param="rehearse") from None
    except (KeyError, ValueError, TypeError) as error:
        raise Invalid(f"{path} is no recording: {error}", param="rehearse") from None


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
