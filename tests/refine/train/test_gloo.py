"""Processes that train together: the result of one without compression, less traffic and a near result with it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from temper.errors import EngineDied, Invalid
from temper.refine.recipes import make_recipe
from temper.refine.train.powersgd import PowerSgd
from temper.refine.train.recipe import TrainRecipe
from tests.refine.train.test_loop import SETTINGS, place, run

__all__ = ["place"]


def test_two_processes_are_as_one(place: Path):
    changes = ("steps=4", "micro_batch=1", "regularization.dropout=0.1", "packing=false")
    alone = run(place, "out=alone", *changes)
    pair = run(place, "out=pair", "processes=2", *changes)
    for one, other in zip(alone.history, pair.history, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert (other["tokens"], other["targets"]) == (one["tokens"], one["targets"])
    assert pair.history[-1]["validation"] == pytest.approx(alone.history[-1]["validation"], rel=1e-4)
    one, other = (load_file(found.checkpoints["last"] / "model.safetensors") for found in (alone, pair))
    for name, values in one.items():
        torch.testing.assert_close(other[name].float(), values.float(), rtol=2e-2, atol=2e-3)


def test_a_process_that_ends_ends_the_run_in_words(place: Path, monkeypatch):
    monkeypatch.setattr("temper.refine.train.job.PEER", "no_such_module")
    with pytest.raises(EngineDied, match=r"process 1 ended with 1: .*no_such_module"):
        run(place, "processes=2", "micro_batch=1")


@pytest.mark.parametrize("num_processes", [1, 3])
def test_powersgd_loses_nothing_for_good(num_processes):
    """What one step loses is in the error of the next: sums of steps come near the sums of gradients."""
    torch.manual_seed(0)
    low = torch.randn(20, 2) @ torch.randn(2, 30)
    processes = [PowerSgd(2, num_processes, after=0, seed=1) for _ in range(num_processes)]
    total = torch.zeros(20, 30)
    for step in range(60):
        gradients = [[low / num_processes + 0.01 * torch.randn(20, 30), torch.ones(3)] for _ in processes]
        _together(processes, gradients, step)
        total += gradients[0][0]
        for other in gradients[1:]:
            torch.testing.assert_close(other[0], gradients[0][0])
        assert torch.equal(gradients[0][1], torch.full((3,), float(num_processes)))
    assert float((total / 60 - low).norm() / low.norm()) < 0.01


def test_powersgd_goes_on_from_its_state():
    def gradients(step: int) -> list[torch.Tensor]:
        return [torch.randn(20, 30, generator=torch.Generator().manual_seed(step))]

    whole, first = (PowerSgd(2, 1, after=1, seed=1) for _ in range(2))
    for process, steps in ((whole, range(6)), (first, range(3))):
        for step in steps:
            process.add(gradients(step), step, lambda values: None)
    second = PowerSgd(2, 1, after=1, seed=1)
    second.load({name: values.clone() for name, values in first.state().items()})
    for step in range(3, 6):
        second.add(gradients(step), step, lambda values: None)
    assert whole.state().keys() == second.state().keys()
    assert all(torch.equal(values, second.state()[name]) for name, values in whole.state().items())


def _together(processes: list[PowerSgd], gradients: list[list[torch.Tensor]], step: int) -> None:
    """All of them, in threads that meet at every sum."""
    barrier, slots = threading.Barrier(len(processes)), {}

    def adder(rank: int):
        def add(values: torch.Tensor) -> None:
            slots[rank] = values.clone()
            barrier.wait()
            total = sum(slots[other] for other in range(len(processes)))
            barrier.wait()
            values.copy_(total)

        return add

    threads = [
        threading.Thread(target=process.add, args=(gradients[rank], step, adder(rank)))
        for rank, process in enumerate(processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_small_gradients_are_sent_whole():
    seen = []
    PowerSgd(4, 1, after=0, seed=0).add([torch.ones(10, 10), torch.ones(100, 50)], 0, lambda t: seen.append(t.numel()))
    assert seen == [100, 400, 200]


def test_batches_divide_among_processes():
    settings = json.loads(json.dumps(SETTINGS))
    with pytest.raises(Invalid, match="2 times 3 does not divide 4"):
        make_recipe(TrainRecipe, settings, ["processes=3"])
