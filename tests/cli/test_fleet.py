"""`temper versions`, `rollout` and `loop` as a user types them, over a store that a test fills."""

from __future__ import annotations

import json

import pytest

from temper import api
from temper.cli.app import run
from temper.errors import NotFound
from temper.fleet.controller import Controller
from temper.fleet.store import Store, url_of
from temper.fleet.turns import Turn
from temper.profile import store as profiles
from tests.fleet.stores import dispatch, fake, served


class Typed:
    """Runs the command line in this process, over one home."""

    def __init__(self, home, capsys):
        self.home, self._capsys = home, capsys

    def __call__(self, *args: str) -> tuple[int, str, str]:
        code = run([*args, "--home", str(self.home)])
        out, err = self._capsys.readouterr()
        return code, out, err

    def json(self, *args: str) -> dict:
        _, out, _ = self(*args, "--json")
        return json.loads(out)


@pytest.fixture
def typed(tmp_path, capsys):
    return Typed(tmp_path, capsys)


@pytest.fixture
def store(tmp_path):
    with Store(url_of(tmp_path)) as opened:
        served(opened)
        yield opened


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "better.toml"
    profiles.save(fake(seed=1), path)
    return str(path)


def judged(store: Store, id: str, failing: bool = False) -> None:
    """A rollout fed until it ends."""
    controller = Controller(store, "test")
    for number in range(4000):
        rollout = store.rollouts.find(id)
        if rollout.state != "running":
            return
        with store.database.transaction():
            for at in range(40):
                arm = "candidate" if at % 2 else "control"
                bad = failing and arm == "candidate" and at % 4 == 1
                outcome = {"outcome": "failed", "e2e_ms": None, "ttft_ms": None} if bad else {"e2e_ms": 100.0 + at // 2}
                dispatch(store, id, 40 * number + at, arm, 0.5, quality=1.0, **outcome)
        controller.tick()
    raise AssertionError("it does not end")


# -- versions ----------------------------------------------------------------------------------------


def test_a_profile_is_kept_shown_compared_promoted_and_retired(typed, store, file):
    code, out, _ = typed("versions", "add", file, "--note", "another seed")
    assert code == 0
    new, base = out.strip(), store.deployments.find("default").production
    listed = typed.json("versions", "list")
    assert listed["schema"] == "temper.versions.list/1"
    assert [(one["id"], one["stage"]) for one in listed["versions"]] == [(new, "candidate"), (base, "production")]
    assert new[:12] in typed("versions", "list", "--stage", "candidate")[1]
    assert typed.json("versions", "diff", base[:8], new[:8])["changes"] == [{"field": "engine.seed", "a": 0, "b": 1}]
    shown = typed.json("versions", "promote", new[:8])
    assert shown["version"]["stage"] == "production"
    code, out, _ = typed("versions", "show", base[:8])
    assert "# retired, from person" in out
    assert profiles.parse(out) == fake()
    code, _, err = typed("versions", "retire", new[:8])
    assert code == 2
    assert "is in production" in err
    assert typed("versions", "show", "0" * 8)[0] == 2


def test_a_version_is_a_profile_wherever_one_is_named(typed, store, tmp_path):
    version = store.versions.add(fake(seed=4), {})
    assert api.profile(version.id[:8], where=api.place(home=tmp_path)) == fake(seed=4)
    with pytest.raises(NotFound, match=r"a \.toml file or a version"):
        api.profile("abcdef01", where=api.place(home=tmp_path))


# -- rollouts ----------------------------------------------------------------------------------------


def test_a_rollout_from_a_file_to_its_promotion(typed, store, file):
    code, out, err = typed("rollout", "start", file, "--steps", "50,100", "--min-requests", "40", "--min-seconds", "0")
    assert code == 0
    assert "no controller is running" in err
    id = store.rollouts.running().id
    found = typed.json("rollout", "status")
    assert {name: found[name] for name in ("stage", "share", "state")} == {
        "stage": "canary",
        "share": 0.5,
        "state": "running",
    }
    assert {"version", "verdict", "effect", "interval", "requests", "machine", "schema"} <= set(found)
    judged(store, id)
    code, out, _ = typed("rollout", "watch", id)
    assert code == 0
    assert "is production, promoted at 100%" in out
    code, out, _ = typed("versions", "show", store.rollouts.find(id).candidate[:8])
    assert "# rollout: pass: shown: nothing got worse" in out
    assert "# made from" in out


def test_a_rollout_that_harms_ends_with_1(typed, store, file, tmp_path):
    typed("rollout", "start", file, "--steps", "50,100", "--min-requests", "40", "--quality", "off")
    judged(store, store.rollouts.running().id, failing=True)
    html = tmp_path / "rollout.html"
    code, out, _ = typed("rollout", "status", "--html", str(html))
    assert code == 1
    assert "rolled_back at 0%" in out
    assert "<svg" in html.read_text()


def test_a_rollout_is_paused_resumed_and_aborted_by_hand(typed, store, file):
    typed("rollout", "start", file)
    assert typed.json("rollout", "pause")["paused"] is True
    assert typed.json("rollout", "resume")["paused"] is False
    assert typed.json("rollout", "abort")["state"] == "aborted"
    assert typed("rollout", "abort")[0] == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--steps", "50,25,100"), "steps must ascend"),
        (("--tolerate", "speed=1"), "no guardrail is called 'speed'"),
        (("--target", "speed"), "target: Input should be"),
        (("--tolerate", "e2e=much"), "takes a number above 0"),
        (("--quality", "agreement:0"), "takes a number above 0"),
    ],
)
def test_plans_that_cannot_be_are_wrong_usage(typed, store, file, args, said):
    code, _, err = typed("rollout", "start", file, *args)
    assert (code, said in err) == (2, True), err


def test_without_a_rollout_there_is_nothing_to_show(typed, store):
    code, _, err = typed("rollout", "status")
    assert code == 2
    assert "temper rollout start" in err


# -- the loop ----------------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_saw(typed, store):
    for number in range(120):
        dispatch(store, None, number, None, None)  # type: ignore[arg-type]
    found = typed.json("loop", "run", "--dry-run")
    assert (found["outcome"], found["deployment"]) == ("steady", "default")
    assert "120 requests came" in " ".join(found["sentences"])


def test_the_record_is_read_newest_first(typed, store):
    for text in ("First.", "Second."):
        turn = Turn("default")
        store.turns.open(turn)
        turn.say(text)
        turn.outcome = "promoted"
        store.turns.keep(turn)
    out = typed("loop", "log")[1]
    assert out.index("Second.") < out.index("First.")
    assert [turn["sentences"] for turn in typed.json("loop", "log")["turns"]] == [["Second."], ["First."]]
