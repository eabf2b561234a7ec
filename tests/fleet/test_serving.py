"""A server that follows the store: traffic is moved, recorded and moved back, and no request is lost on the way."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from temper.engines.fake import FakeEngine
from temper.engines.shared import Shared
from temper.engines.swap import Swappable
from temper.fleet.controller import Controller
from temper.fleet.plan import Plan
from temper.fleet.serving import Follower, production_of
from temper.fleet.store import Store
from temper.types import Delta, Done, Failed, Limits, Request
from tests.fleet.stores import fake
from tests.waiting import until

QUICK = {"steps": (0.5, 1.0), "min_requests": 40, "min_s": 0.0}
SURE = Plan(**QUICK, guardrails=({"metric": "errors", "tolerance": 0.2, "proven": True},), quality="off")
"""Sure of itself after a hundred requests: these tests are of the machinery, not of the statistics."""


class Deployment:
    """A root, its follower, a controller, and callers; everything moves when it is told to."""

    def __init__(self, folder, base=None):
        self.url = f"sqlite:///{folder / 'fleet.db'}"
        self.base = base or fake()
        self.made = []
        self.root = Swappable(self.base, self.new(self.base), self.make)
        self.follower = Follower(
            self.root, self.url, "default", "http://127.0.0.1:1", make=self.make, manifests=lambda profile: {}
        )
        self.store = Store(self.url)
        self.controller = Controller(self.store, "test")
        self.numbers = itertools.count()

    def new(self, profile):
        shared = Shared(FakeEngine(profile.engine))
        self.made.append(shared)
        return shared.lend()

    async def make(self, profile):
        return self.new(profile)

    async def ask(self, **extensions):
        """One request; the arm that answered it."""
        number = next(self.numbers)
        request = Request(f"r{number}", prompt=f"say {number}", limits=Limits(8), extensions=extensions)
        events = [event async for event in self.root.generate(request)]
        if isinstance(events[-1], Failed):
            return None
        assert isinstance(events[-1], Done), events
        assert "".join(event.text for event in events if isinstance(event, Delta)) == f"say {number}"
        return events[-1].made_by

    async def ask_all(self, num):
        return await asyncio.gather(*(self.ask() for _ in range(num)))

    async def settle(self):
        """The journal is written, judged, and the wanted state taken over."""
        await asyncio.sleep(0.1)
        self.controller.tick()
        await self.follower.look()

    def start(self, seed=1, plan=SURE, **fields):
        candidate = self.store.versions.add(fake(seed=seed, **fields), {})
        return self.store.rollouts.start("default", candidate.id, plan)


@pytest.fixture
async def deployment(tmp_path):
    found = Deployment(tmp_path)
    await found.root.start()
    await found.follower.look()
    yield found
    await found.follower.close()
    await found.root.stop()
    found.store.close()


async def test_a_candidate_that_is_no_worse_is_promoted_and_its_engine_stays(deployment):
    rollout = deployment.start()
    await deployment.follower.look()
    candidate = deployment.made[-1]
    arms = []
    while deployment.store.rollouts.find(rollout.id).state == "running":
        arms += await deployment.ask_all(20)
        await deployment.settle()
        assert len(arms) < 600
    assert deployment.store.rollouts.find(rollout.id).state == "promoted"
    assert {made.branch for made in arms} == {"control", "candidate"}
    assert {made.version for made in arms} == {rollout.control, rollout.candidate}
    last = await deployment.ask()
    assert (last.branch, last.version) == (None, rollout.candidate)
    assert deployment.root.profile == fake(seed=1)
    assert len(deployment.made) == 2
    assert candidate.engine.health().ready
    await until(lambda: not deployment.made[0].engine.health().ready)
    assert deployment.store.versions.evidence(rollout.candidate)[-1].verdict == "pass"


async def test_a_candidate_that_fails_is_rolled_back(deployment):
    rollout = deployment.start(script="echo+error-500%60")
    await deployment.follower.look()
    for _ in range(30):
        await deployment.ask_all(20)
        await deployment.settle()
        if deployment.store.rollouts.find(rollout.id).state != "running":
            break
    found = deployment.store.rollouts.find(rollout.id)
    assert (found.state, found.share) == ("rolled_back", 0.0)
    assert "worse than tolerated: errors" in found.reason
    made = await deployment.ask()
    assert (made.branch, made.version) == (None, rollout.control)
    assert deployment.store.versions.find(rollout.candidate).stage == "retired"
    await until(lambda: not deployment.made[1].engine.health().ready)
    assert deployment.made[0].engine.health().ready


async def test_nothing_is_promoted_without_traffic(deployment):
    rollout = deployment.start()
    await deployment.follower.look()
    for _ in range(3):
        await deployment.settle()
    assert deployment.store.rollouts.find(rollout.id).state == "running"
    deployment.store.rollouts.abort(rollout.id)
    patient = deployment.start(seed=2, plan=SURE.model_copy(update={"max_s": 0.01}))
    await deployment.settle()
    found = deployment.store.rollouts.find(patient.id)
    assert found.state == "inconclusive"
    assert deployment.store.versions.find(patient.candidate).stage == "candidate"


async def test_no_request_is_lost_while_traffic_moves_there_and_back(deployment):
    ended = False

    async def callers():
        while not ended:
            assert all(await deployment.ask_all(8))

    work = asyncio.gather(*(callers() for _ in range(3)))
    for seed in range(1, 5):
        rollout = deployment.start(seed=seed)
        await deployment.follower.look()
        await asyncio.sleep(0.05)
        deployment.store.rollouts.abort(rollout.id)
        await deployment.follower.look()
    ended = True
    await work
    rows = deployment.store.database.rows("SELECT outcome, COUNT(*) AS n FROM requests GROUP BY outcome")
    assert {row["outcome"] for row in rows} <= {"ok", None}


async def test_an_arm_is_in_the_store_before_its_request_goes_out(deployment):
    rollout = deployment.start(script="stall@0", plan=SURE)
    await deployment.follower.look()
    tasks = [asyncio.create_task(deployment.ask()) for _ in range(12)]
    await asyncio.sleep(0.3)
    counts = deployment.store.requests.counts(rollout.id)
    assert counts["candidate"]["open"] > 0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: deployment.store.requests.counts(rollout.id)["candidate"].keys() == {"left"})
    counts = deployment.store.requests.counts(rollout.id)
    assert counts["candidate"].keys() == {"left"}
    assert sum(counts["candidate"].values()) + sum(counts["control"].values()) == 12


async def test_a_caller_stays_on_one_side_and_is_one_unit(deployment):
    rollout = deployment.start()
    await deployment.follower.look()
    for user in range(8):
        arms = {(await deployment.ask(user=str(user))).branch for _ in range(5)}
        assert len(arms) == 1
    await deployment.settle()
    assert deployment.store.rollouts.find(rollout.id).judged["num_units"] == 8


async def test_counters_do_not_fall_and_count_once_while_trees_change(deployment):
    seen = []
    for seed in (1, 2):
        rollout = deployment.start(seed=seed)
        await deployment.follower.look()
        await deployment.ask_all(10)
        seen.append(deployment.root.stats().generation_tokens_total)
        deployment.store.rollouts.abort(rollout.id)
        await deployment.follower.look()
        await asyncio.sleep(0.1)
        seen.append(deployment.root.stats().generation_tokens_total)
    engines = sum(made.engine.stats().generation_tokens_total for made in deployment.made)
    assert seen == sorted(seen)
    assert seen[-1] == engines


async def test_a_candidate_that_cannot_start_is_rolled_back_and_traffic_goes_on(deployment):
    rollout = deployment.start()
    real = deployment.new

    def broken(profile):
        lent = real(profile)

        async def start():
            from temper.errors import CheckpointError

            raise CheckpointError("no such weights")

        lent.shared.engine.start = start
        return lent

    deployment.new = broken
    await deployment.follower.look()
    assert await deployment.ask()
    deployment.controller.tick()
    found = deployment.store.rollouts.find(rollout.id)
    assert found.state == "rolled_back"
    assert "cannot serve the candidate: no such weights" in found.reason


async def test_a_profile_changed_by_hand_is_production_and_ends_the_rollout(deployment):
    rollout = deployment.start()
    await deployment.follower.look()
    await deployment.root.change(fake(seed=9))
    await deployment.follower.look()
    assert deployment.store.rollouts.find(rollout.id).state == "aborted"
    made = await deployment.ask()
    assert deployment.store.versions.find(made.version).profile == fake(seed=9)
    assert deployment.store.deployments.find("default").production == made.version


async def test_a_store_that_is_gone_leaves_everything_as_it_is(deployment, tmp_path):
    deployment.start()
    await deployment.follower.look()
    for file in tmp_path.glob("fleet.db*"):
        file.unlink()
    (tmp_path / "fleet.db").mkdir()
    assert all(await deployment.ask_all(5))


async def test_a_server_that_starts_again_serves_what_was_promoted(deployment):
    version = deployment.store.versions.add(fake(seed=3), {})
    with deployment.store.database.transaction():
        deployment.store.deployments.produce("default", version.id, "by hand")
    assert production_of(deployment.url, "default", fake(), {}).id == version.id
    await deployment.follower.look()
    assert (await deployment.ask()).version == version.id


async def test_any_state_of_a_rollout_survives_its_controller(deployment):
    """Each tick is another controller's, and most die before they can write."""
    rollout = deployment.start(plan=SURE.model_copy(update={"steps": (0.2, 0.5, 1.0)}))
    await deployment.follower.look()
    for number in range(60):
        await deployment.ask_all(20)
        await asyncio.sleep(0.05)
        controller = Controller(deployment.store, f"c{number}", ttl_s=0.0 if number % 3 else 10.0)
        if number % 3:
            controller.step()  # its lease has expired when it comes to write
        else:
            controller.tick()
            controller.leave()
        await deployment.follower.look()
        if deployment.store.rollouts.find(rollout.id).state != "running":
            break
    found = deployment.store.rollouts.find(rollout.id)
    assert found.state == "promoted"
    judged = deployment.store.database.row("SELECT COUNT(*) AS n FROM requests WHERE judged = 1")["n"]
    assert judged == found.judged["num_units"]
    kinds = [event.kind for event in deployment.store.history(rollout=rollout.id)]
    assert kinds == ["started", "step", "promoted"]
