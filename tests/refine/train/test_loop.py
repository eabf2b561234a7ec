"""The loop learns, evaluates, stops, and ends in the same bits after any number of kills."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from temper.errors import Invalid, TemperError
from temper.models.checkpoint import open_checkpoint
from temper.refine.network import open_network
from temper.refine.recipes import make_recipe
from temper.refine.train.job import read_data, train_recipe
from temper.refine.train.losses import Terms, answer_loss
from temper.refine.train.recipe import TrainRecipe
from tests.tiny_models import write_tiny_folder

SETTINGS: dict[str, Any] = {
    "model": "plain",
    "out": "run",
    "seed": 3,
    "data": {"train": ["train.jsonl"], "validation_share": 0.2},
    "optimizer": {"learning_rate": 3e-3},
    "schedule": {"steps": 12},
    "batch": {"batch_size": 4, "micro_batch": 2, "context_length": 64},
    "evaluation": {"every": 4},
    "saving": {"every": 1},
    "compute": {"threads": 1, "precision": "fp32"},
}
KILLED = """
import json, sys
from pathlib import Path
from temper.refine.recipes import make_recipe
from temper.refine.train.job import train_recipe
from temper.refine.train.recipe import TrainRecipe
place = Path(sys.argv[2])
recipe = make_recipe(TrainRecipe, json.loads(sys.argv[1]))
train_recipe(recipe, place, place, lambda *told: None, lambda line: print("step", line["step"], flush=True))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_tiny_folder(tmp_path / "plain", tie_word_embeddings=True, num_hidden_layers=1)
    lines = []
    for a in range(6):
        for b in range(5):
            turns = [{"role": "user", "content": f"{a}+{b}"}, {"role": "assistant", "content": f"{a + b} and the rest"}]
            lines.append(json.dumps({"messages": turns}))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    return tmp_path


def run(place: Path, *changes: str, watch=lambda line: None, loss=answer_loss):
    settings = {**SETTINGS, "model": str(place / "plain")}
    return train_recipe(make_recipe(TrainRecipe, settings, changes), place, place, lambda *told: None, watch, loss)


def curve(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_run_learns_and_leaves_checkpoints_that_open(place: Path):
    found = run(place)
    losses = [line["loss"] for line in found.history]
    assert losses[-1] < 0.6 * losses[0]
    assert [line["step"] for line in found.history if "validation" in line] == [4, 8, 12]
    assert found.outcome.best_step == 12
    assert {name: path.name for name, path in found.checkpoints.items()} == {"last": "last", "best": "best"}
    last = open_checkpoint(str(found.checkpoints["last"]), place)
    assert [step.recipe for step in last.manifest.steps] == ["train"]
    assert last.manifest.steps[0].settings["resolved"] == {"precision": "fp32", "threads": 1}
    assert last.manifest_hash() == open_checkpoint(str(found.checkpoints["best"]), place).manifest_hash()
    assert not list((place / "run").glob("state-*"))
    page = (place / "run" / "loss.html").read_text()
    assert "held out" in page
    assert "polyline" in page
    with pytest.raises(Invalid, match="is finished"):
        run(place)


def test_what_is_replayed_is_a_share_of_the_tokens_and_forgetting_is_measured(place: Path):
    old = [{"messages": [{"role": "user", "content": f"{a}-{b}"}, {"role": "assistant", "content": f"is {a - b}"}]}
           for a in range(4) for b in range(4)]  # fmt: skip
    (place / "old.jsonl").write_text("\n".join(map(json.dumps, old)))
    settings = {**SETTINGS, "model": str(place / "plain"),
                "replay": {"files": ["old.jsonl"], "share": 0.4, "held_out_share": 0.3}}  # fmt: skip
    recipe = make_recipe(TrainRecipe, settings)
    network = open_network(recipe.model, place)
    new = read_data(recipe.model_copy(update={"replay": None}), network, place, lambda *told: None)
    both = read_data(recipe, network, place, lambda *told: None)
    tokens, added = (sum(map(len, examples.train)) for examples in (new, both))
    assert (added - tokens) / added == pytest.approx(0.4, abs=0.02)
    same = zip(both.train, new.train, strict=False)
    assert all(list(one.token_ids) == list(other.token_ids) for one, other in same)
    assert (len(both.held_out), both.kept != ()) == (len(new.held_out), True)
    assert both.sha256 != new.sha256
    found = train_recipe(recipe, place, place, lambda *told: None, lambda line: None)
    told = found.step.measured["replay"]
    assert told["examples"] == len(both.kept)
    assert told["forgotten"] == pytest.approx(told["after"] - told["before"])
    assert told["forgotten"] < 0  # a random model knew nothing of it
    assert told["interval"][0] <= told["forgotten"] <= told["interval"][1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("replay.share=1", "replay.share must be"),
        ("replay.files=[]", "replay.files must be"),
        ('replay.files=["nowhere.jsonl"]', "nowhere.jsonl"),
        ('replay.files=["one.jsonl"]', "there must be a held-out example"),
    ],
)
def test_replay_that_cannot_be_is_refused(place: Path, change: str, says: str):
    one = {"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]}
    (place / "one.jsonl").write_text(json.dumps(one))
    files = () if "files" in change else ('replay.files=["train.jsonl"]',)
    with pytest.raises(TemperError, match=says):
        run(place, *files, change)


@pytest.mark.parametrize(
    ("changes", "moments"),
    [
        ((), ((1, 0.0), (2, 0.01))),
        (
            ("regularization.dropout=0.1", "checkpoint_activations=true", "packing=false", "precision=bf16"),
            ((3, 0.02),),
        ),
    ],
)
def test_a_run_killed_again_and_again_ends_in_the_same_bits(place: Path, changes, moments):
    run(place, "out=whole", *changes)
    settings = {**SETTINGS, "model": str(place / "plain"), "out": "killed"}
    recipe = make_recipe(TrainRecipe, settings, changes).model_dump_json(exclude_unset=True)
    kills = 0
    for after, delay_s in moments:
        command = [sys.executable, "-c", KILLED, recipe, str(place)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert kills
    run(place, "out=killed", *changes)
    assert curve(place / "killed") == curve(place / "whole")
    for name in ("last", "best"):
        whole, killed = (place / folder / name / "model.safetensors" for folder in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()


def test_it_stops_when_nothing_gets_better(place: Path):
    found = run(place, "patience=2", "evaluation.every=1", "min_gain=100", "regularization.dropout=0.2")
    assert found.outcome.stopped_early
    assert (found.outcome.num_steps, found.outcome.best_step) == (3, 1)


def test_a_loss_of_ones_own_and_a_diverged_run(place: Path):
    def broken(model, batch):
        right = answer_loss(model, batch)
        return Terms(right.total * math.inf, {"hard": float(right.total.detach())})

    with pytest.raises(TemperError, match=r"step 1 is inf: training has diverged \(lower optimizer.learning_rate"):
        run(place, loss=broken)
    found = run(place, loss=lambda model, batch: Terms(2 * answer_loss(model, batch).total, {"half": 1.0}))
    assert set(found.history[0]["parts"]) == {"half"}
    assert found.history[0]["parts"]["half"] * found.history[0]["targets"] == pytest.approx(2)


def test_a_run_goes_on_only_as_what_it_began(place: Path):
    class Stop(Exception): ...

    def stop(line):
        if line["step"] == 2:
            raise Stop

    with pytest.raises(Stop):
        run(place, watch=stop)
    with pytest.raises(Invalid, match=r"goes on as .* but recipe.seed, recipe.optimizer.learning_rate differ"):
        run(place, "learning_rate=1e-4", "seed=4")
    (place / "train.jsonl").write_text((place / "train.jsonl").read_text() + "\n" + json.dumps({"text": "the"}))
    with pytest.raises(Invalid, match="data_sha256 differ"):
        run(place)
    (place / "other").mkdir()
    (place / "other" / "mine.txt").write_text("")
    with pytest.raises(Invalid, match="holds other things"):
        run(place, "out=other")
    with pytest.raises(Invalid, match="is a file"):
        run(place, "out=train.jsonl")
