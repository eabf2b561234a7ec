"""Measuring for a study: the one way from its decisions to the world, by way of the ledger.

What is in the ledger under a key is read, anything else is measured and written down before it is used. So nothing is
measured twice, and time is counted as the sum of what measuring took, which survives a kill.
"""

from __future__ import annotations

from typing import Final

from temper.errors import EngineFailure
from temper.tuner.evaluate import Block, Evaluator, Kind, Slot, Task, Trouble
from temper.tuner.ledger import Ledger
from temper.tuner.objective import Objective
from temper.tuner.space import Point
from temper.tuner.study import keyed
from temper.tuner.trial import Pair, gain_of

SIDES: Final[tuple[Slot, Slot]] = ("incumbent", "candidate")


class Measuring:
    """The measurements of one study."""

    def __init__(
        self,
        id: str,
        evaluator: Evaluator,
        ledger: Ledger,
        incumbent: Point,
        objective: Objective,
        kind: Kind,
        seed: int,
    ) -> None:
        self._id, self._evaluator, self._ledger = id, evaluator, ledger
        self._incumbent, self._objective, self._kind, self._seed = incumbent, objective, kind, seed
        self._recorded = ledger.measurements(id)
        self._counted: set[str] = set()
        self.spent_s = 0.0
        """Seconds of measuring and starting so far, those before a kill included."""
        self.requests: int | None = None
        """In a block of load."""

    def seen(self, key: str) -> Block | None:
        """What was measured under a key; None: nothing yet."""
        return self._recorded.get(key)

    async def unit(self, key: str, point: Point) -> list[tuple[Pair, float]] | Trouble:
        """One independent unit: both sides started anew, ABBA; pairs with their gains. Trouble where a side has any."""
        found = []
        for number in range(2):
            pair = await self.pair(f"{key}/{number}", point, flip=bool(number), fresh=number == 0)
            if pair.candidate.trouble is not None:
                return pair.candidate.trouble
            gain = gain_of(pair, self._objective)
            if gain is None:
                return Trouble("failures", f"no figure for {self._objective.metric}")
            found.append((pair, gain))
        return found

    async def pair(self, key: str, point: Point, *, flip: bool, fresh: bool = False) -> Pair:
        """The same load on both sides, one after the other; `flip`: the candidate first."""
        seed = keyed(self._seed, key)
        blocks: dict[str, Block] = {}
        for side in reversed(SIDES) if flip else SIDES:
            where = f"{key}/{side}"
            if side == "incumbent":
                blocks[side] = await self.incumbent(where, seed, fresh=fresh, beside=point)
            else:
                task = Task(where, point, side, seed, self._kind, fresh, self.requests, point)
                blocks[side] = await self.measure(task)
        return Pair(blocks["incumbent"], blocks["candidate"])

    async def incumbent(
        self, key: str, seed: int, *, fresh: bool = False, count: int | None = None, beside: Point | None = None
    ) -> Block:
        """A block of the incumbent. It is what there is, so trouble once is tried again.

        Raises:
            EngineFailure: trouble twice; there is nothing to compare with.
        """
        for attempt in ("", "/again"):
            task = Task(
                key + attempt, self._incumbent, "incumbent", seed, self._kind, fresh, count or self.requests, beside
            )
            found = await self.measure(task)
            if found.trouble is None:
                return found
        assert found.trouble is not None
        raise EngineFailure(f"the incumbent cannot be measured: {found.trouble.kind}: {found.trouble.reason}")

    async def quality(self, key: str, point: Point, slot: Slot, seed: int, count: int) -> Block:
        """Ask the suite."""
        return await self.measure(Task(key, point, slot, seed, "quality", count=count))

    async def measure(self, task: Task) -> Block:
        """Do a task, or read what came of it before."""
        found = self._recorded.get(task.key)
        if found is None:
            found = await self._evaluator.measure(task)
            self._ledger.record(self._id, task, found)
            self._recorded[task.key] = found
        if task.key not in self._counted:
            self._counted.add(task.key)
            self.spent_s += found.seconds + found.start_s
        return found
