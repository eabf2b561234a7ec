"""What every store must do, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from temper.errors import Invalid, NotFound
from temper.fleet.database import StoreUnreachable
from temper.fleet.store import LeaseLost, Store
from temper.fleet.turns import Turn
from tests.fleet.stores import dispatch, fake, postgres, served


@pytest.fixture(scope="module")
def postgres_url():
    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # short: a socket's path has 107 bytes at most
        os.chmod(folder, 0o755)
        with postgres(Path(folder)) as url:
            yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    found = request.getfixturevalue("postgres_url")
    with Store(found) as store:
        tables = "versions, evidence, deployments, servers, rollouts, looks, requests, units, leases, events, turns"
        store.database.change(f"TRUNCATE {tables}")
    return found


@pytest.fixture
def store(url):
    with Store(url) as opened:
        yield opened


# -- versions ----------------------------------------------------------------------------------------


def test_the_same_profile_is_the_same_version_and_keeps_its_lineage(store):
    first = store.versions.add(fake(), {}, note="first")
    child = store.versions.add(fake(seed=1), {}, origin="study", source="s-1", parent=first.id)
    again = store.versions.add(fake(seed=1), {}, note="another hand")
    assert again == child
    assert [one.id for one in store.versions.lineage(child.id)] == [child.id, first.id]
    assert (child.origin, child.source, child.stage) == ("study", "s-1", "candidate")
    assert store.versions.find(child.id[:8]).profile == fake(seed=1)


def test_versions_are_named_by_a_unique_beginning(store):
    version = store.versions.add(fake(), {})
    assert store.versions.get(version.short) == version
    for name in ("", "abc", "zzzzzzzz", "0" * 12, version.id[:5], version.id + "0"):
        assert store.versions.get(name) is None
        with pytest.raises(NotFound):
            store.versions.find(name)


def test_a_name_with_signs_of_its_own_finds_nothing(store):
    served(store)
    for name in ("%%%%%%%%", "______", "' OR 1=1 --"):
        assert store.versions.get(name) is None


def test_evidence_is_kept_in_order(store):
    version = store.versions.add(fake(), {})
    for verdict in ("inconclusive", "pass"):
        store.versions.witness(version.id, "ab", verdict, {"effect": 0.1})
    assert [(one.kind, one.verdict, one.document) for one in store.versions.evidence(version.id)] == [
        ("ab", "inconclusive", {"effect": 0.1}),
        ("ab", "pass", {"effect": 0.1}),
    ]


def test_stages_follow_what_points_at_a_version(store):
    base = served(store)
    other = store.versions.add(fake(seed=1), {}).id
    stage = {name: lambda name=name: store.versions.find(name).stage for name in (base, other)}
    assert (stage[base](), stage[other]()) == ("production", "candidate")
    rollout = store.rollouts.start("default", other)
    assert stage[other]() == "canary"
    with pytest.raises(Invalid, match="is in canary"):
        store.versions.retire(other)
    store.rollouts.abort(rollout.id)
    assert stage[other]() == "candidate"
    assert store.versions.retire(other).stage == "retired"
    with store.database.transaction():
        store.deployments.produce("default", other, "by hand")
    assert (stage[base](), stage[other]()) == ("retired", "production")
    with pytest.raises(Invalid, match="is in production"):
        store.versions.retire(other)


# -- deployments -------------------------------------------------------------------------------------


def test_a_restart_keeps_what_was_promoted_and_a_new_base_replaces_it(store):
    base = served(store)
    better, newer = (store.versions.add(fake(seed=seed), {}).id for seed in (1, 2))
    with store.database.transaction():
        store.deployments.produce("default", better, "by hand")
    assert store.deployments.begin("default", base).production == better
    assert store.deployments.begin("default", newer).production == newer
    assert store.deployments.find("default").base == newer


def test_the_only_running_deployment_needs_no_name(store):
    with pytest.raises(NotFound, match="no server is running"):
        store.deployments.chosen()
    base = served(store)
    assert store.deployments.chosen().name == "default"
    store.deployments.begin("other", base)
    store.deployments.report("s2", "other", "http://127.0.0.1:2", base)
    with pytest.raises(Invalid, match="several deployments are running: default, other"):
        store.deployments.chosen()
    store.deployments.leave("s2")
    assert store.deployments.chosen().name == "default"


# -- rollouts ----------------------------------------------------------------------------------------


def test_a_rollout_needs_a_server_another_version_and_the_floor_to_itself(store):
    base = served(store)
    one, two = (store.versions.add(fake(seed=seed), {}).id for seed in (1, 2))
    with pytest.raises(Invalid, match="production of 'default' already"):
        store.rollouts.start("default", base)
    with pytest.raises(NotFound, match="no deployment"):
        store.rollouts.start("nowhere", one)
    begun = store.rollouts.start("default", one)
    with pytest.raises(Invalid, match="still running"):
        store.rollouts.start("default", two)
    store.rollouts.abort(begun.id)
    with pytest.raises(Invalid, match="is aborted already"):
        store.rollouts.pause(begun.id)
    store.deployments.leave("s1")
    with pytest.raises(Invalid, match="no server of 'default' is running"):
        store.rollouts.start("default", two)


def test_a_hand_on_production_ends_the_rollout(store):
    served(store)
    one, two = (store.versions.add(fake(seed=seed), {}).id for seed in (1, 2))
    begun = store.rollouts.start("default", one)
    with store.database.transaction():
        store.deployments.produce("default", two, "by hand")
    assert store.rollouts.find(begun.id).state == "aborted"
    assert [event.kind for event in store.history("default")] == ["begun", "started", "aborted", "produced"]


# -- requests ----------------------------------------------------------------------------------------


def test_requests_are_judged_once_and_only_a_unit_s_first(store):
    served(store)
    rollout = store.rollouts.start("default", store.versions.add(fake(seed=1), {}).id).id
    for number, unit in enumerate(["a", "a", "b", None, None]):
        dispatch(store, rollout, number, "candidate", 0.05, unit)
    dispatch(store, rollout, 9, "control", 0.05, outcome=None)
    with store.database.transaction():
        rows = store.requests.fresh(rollout)
        units = [store.requests.unit(row) for row in rows]
        store.requests.judged(rows)
    assert [unit is not None for unit in units] == [True, False, True, True, True]
    assert store.requests.fresh(rollout) == []
    assert store.requests.counts(rollout) == {"control": {"open": 1}, "candidate": {"ok": 5}}


def test_what_a_dead_server_left_open_is_lost_and_what_takes_too_long_is_overdue(store):
    served(store)
    rollout = store.rollouts.start("default", store.versions.add(fake(seed=1), {}).id).id
    dispatch(store, rollout, 1, "control", 0.05, outcome=None)
    with store.database.transaction():
        store.requests.settle(rollout, patience_s=1e6)
    assert store.requests.fresh(rollout) == []
    store.deployments.leave("s1")
    dispatch(store, rollout, 2, "candidate", 0.05, outcome=None, session="s2")
    with store.database.transaction():
        store.requests.settle(rollout, patience_s=-1.0)
    assert sorted(row["outcome"] for row in store.requests.fresh(rollout)) == ["lost", "overdue"]
    with store.database.transaction():
        assert all(store.requests.unit(row).failed for row in store.requests.fresh(rollout))


def test_old_rows_are_forgotten_unless_they_wait_to_be_judged(store):
    served(store)
    rollout = store.rollouts.start("default", store.versions.add(fake(seed=1), {}).id).id
    for number in range(8):
        dispatch(store, None, number, None, None, dispatched_at=1e9 + number)
    dispatch(store, rollout, 8, "control", 0.05, dispatched_at=1e9)
    for number in range(10, 16):
        dispatch(store, None, number, None, None, dispatched_at=store.database.now() + number)
    store.requests.prune(keep_rows=2)
    left = store.database.rows("SELECT number FROM requests ORDER BY number")
    assert [row["number"] for row in left] == [8, 13, 14, 15]


# -- acting ------------------------------------------------------------------------------------------


def test_one_holds_the_lease_until_it_expires_or_is_given_back(store, url):
    assert store.take_lease("controller", "one", 60)
    assert store.take_lease("controller", "one", 60)
    with Store(url) as other:
        assert not other.take_lease("controller", "two", 60)
        with pytest.raises(LeaseLost), other.acting("controller", "two"):
            pass
        store.drop_lease("controller", "one")
        assert other.take_lease("controller", "two", -1)
    assert store.lease_holder("controller") is None
    assert store.take_lease("controller", "one", 60)


def test_many_controllers_at_once_get_one_lease(url):
    got = []

    def take(name):
        with Store(url) as store:
            got.append(store.take_lease("controller", name, 60))

    threads = [threading.Thread(target=take, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


def test_a_transaction_that_breaks_leaves_nothing(store):
    base = served(store)
    other = store.versions.add(fake(seed=1), {}).id

    def halfway():
        with store.database.transaction():
            store.deployments.produce("default", other, "by hand")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        halfway()
    assert store.deployments.find("default").production == base
    assert len(store.history("default")) == 1


def test_turns_that_were_left_open_are_closed(store):
    first = Turn("default")
    store.turns.open(first)
    first.say("It began.")
    store.turns.keep(first)
    second = Turn("default")
    store.turns.open(second)
    second.say("It ended.")
    second.outcome = "steady"
    store.turns.keep(second)
    assert [(turn["outcome"], turn.get("sentences")) for turn in store.turns.all()] == [
        ("steady", ["It ended."]),
        ("interrupted", ["It began."]),
    ]


def test_quiet_turns_are_told_once(store):
    for outcome in ("steady", "steady", "promoted", "steady", "busy", "busy"):
        turn = Turn("default")
        store.turns.open(turn)
        turn.outcome = outcome
        store.turns.keep(turn)
    assert [turn["outcome"] for turn in store.turns.all()] == ["busy", "steady", "promoted", "steady"]


def test_a_store_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(Invalid, match=r"sqlite:///FILE or postgresql://"):
        Store("mysql://x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnreachable):
        Store(f"sqlite:///{tmp_path / 'folder'}")
