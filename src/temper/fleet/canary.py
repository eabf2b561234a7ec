"""The tree of a rollout: a split of two watched engines, put around the root at run time and never in a profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

from temper.asking import Answer
from temper.engines.base import Engine, Health
from temper.engines.combine.combinator import Child
from temper.engines.combine.split import SplitEngine
from temper.fleet import quality
from temper.fleet.journal import Drawn, Journal
from temper.fleet.observed import Observed
from temper.fleet.plan import Plan
from temper.fleet.rollouts import Rollout
from temper.fleet.versions import Version
from temper.profile import schema
from temper.profile.schema import ArmConfig, Profile
from temper.types import Request


class Canary(SplitEngine):
    """A split that serves as long as its control does."""

    def __init__(
        self, rollout: Rollout, control: Version, candidate: Version, engines: Sequence[Engine], journal: Journal
    ) -> None:
        """`engines` are those of control and candidate."""
        self.rollout = rollout
        self._sides = (control, candidate)
        self._drawn: dict[str, Drawn] = {}
        control_engine, _ = engines
        judges = {"sane": _sane, "agreement": lambda r, a: _agrees(r, a, control_engine)}
        judge = judges.get(rollout.plan.quality)
        watched = [
            Observed(engine, journal, self._dispatch, quality=judge, sampled=lambda r: is_sampled(rollout, r))
            for engine in engines
        ]
        super().__init__(_config(rollout, control, candidate), engines=watched, record=self._record)

    async def move(self, rollout: Rollout) -> None:
        """Another share of the same two."""
        control, candidate = self._sides
        self.rollout = rollout
        await self.apply(Profile(engine=_config(rollout, control, candidate)))

    def _record(self, request: Request, arm: str) -> None:
        """The split has drawn: hand on what was drawn to the watched engine, which runs next in this task."""
        key = self.key_of(request)
        unit = None if key.startswith("request:") else blake2b(key.encode(errors="replace"), digest_size=16).hexdigest()
        version = self._sides[arm == "candidate"]
        self._drawn[request.id] = Drawn(
            version.id,
            self.rollout.id,
            "candidate" if arm == "candidate" else "control",
            self.rollout.share,
            unit,
        )

    def _dispatch(self, request: Request) -> Drawn:
        return self._drawn.pop(request.id)

    def _is_needed(self, child: Child) -> bool:
        return child.name == "control"

    def health(self) -> Health:
        """The control's: a candidate that is down is found by its failures, not by taking the server away."""
        found = super().health()
        if self._state is not None:
            return found
        control = found.engines["control"]
        return replace(control, engines=found.engines)


def is_sampled(rollout: Rollout, request: Request) -> bool:
    """Whether this request's answer is judged, decided before anything is known of it."""
    digest = blake2b(f"{rollout.id}\0quality\0{request.id}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 < rollout.plan.quality_share


def _config(rollout: Rollout, control: Version, candidate: Version) -> schema.SplitEngine:
    plan: Plan = rollout.plan
    arms = (
        ArmConfig(name="control", share=1 - rollout.share, engine=control.profile.engine),
        ArmConfig(name="candidate", share=rollout.share, engine=candidate.profile.engine),
    )
    return schema.SplitEngine(arms=arms, sticky=plan.sticky, seed=rollout.seed)


async def _sane(request: Request, answer: Answer) -> float:
    return float(quality.is_sane(request, answer))


async def _agrees(request: Request, answer: Answer, control: Engine) -> float:
    if not quality.is_sane(request, answer):
        return 0.0
    return float(await quality.agrees(request, answer, control.generate))
