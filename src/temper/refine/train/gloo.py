"""Processes on this machine that train together over gloo: sums over the loopback interface.

The process that was asked to train is rank 0: it starts the others, writes the run's folder, and takes them along when
it ends. Without compression the result is that of one process but for the order of sums.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor, distributed

from temper.errors import EngineDied
from temper.refine.train.peers import Alone, Peers
from temper.refine.train.powersgd import PowerSgd
from temper.refine.train.recipe import Training

TIMEOUT: Final = timedelta(minutes=10)
"""For one sum: another process may be swapping, or writing its state."""
POLL_S: Final = 0.05
LAST_WORDS: Final = 2000


class GlooPeers:
    """See `Peers`."""

    def __init__(self, rank: int, size: int, folder: Path, settings: Training) -> None:
        """Meet the others in `folder`, where each says that it is ready; returns when all are there."""
        self.rank, self.size = rank, size
        (folder / f"{rank}.ready").touch()
        options = distributed.ProcessGroupGloo._Options()
        options._devices = [distributed.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        options._timeout = TIMEOUT
        self._group = distributed.ProcessGroupGloo(
            distributed.FileStore(str(folder / "store"), size), rank, size, options
        )
        compute = settings.compute
        self._compression = (
            PowerSgd(compute.compression_rank, size, compute.compress_after, settings.seed)
            if compute.compression == "powersgd"
            else None
        )

    def add_gradients(self, gradients: Sequence[Tensor], step: int) -> None:
        """See `Peers`."""
        if self._compression is not None:
            self._compression.add(gradients, step, self._add)
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._add(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def add_numbers(self, numbers: Sequence[float]) -> list[float]:
        """See `Peers`."""
        found = torch.tensor(list(numbers), dtype=torch.float64)
        self._add(found)
        return [float(value) for value in found]

    def state(self) -> dict[str, Tensor]:
        """See `Peers`."""
        return self._compression.state() if self._compression is not None else {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Peers`."""
        if self._compression is not None:
            self._compression.load(tensors)

    def _add(self, values: Tensor) -> None:
        try:
            self._group.allreduce([values]).wait()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise EngineDied(f"a process of this training is gone: {reason}",
                             hint="start it again: it goes on from its last state") from error  # fmt: skip


@contextmanager
def together(settings: Training, module: str, opening: Mapping[str, Any]) -> Iterator[Peers]:
    """The peers of rank 0. The others run `module` and read `opening` with their own `rank` from standard input.

    Raises:
        EngineDied: another process ended.
    """
    size = settings.compute.processes
    if size == 1:
        yield Alone()
        return
    with tempfile.TemporaryDirectory(prefix="temper-train-") as folder:
        others: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        try:
            for rank in range(1, size):
                log = (Path(folder) / f"{rank}.log").open("w+b")
                process = subprocess.Popen(
                    [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=log, stderr=log
                )
                others.append((process, log))
                assert process.stdin is not None
                said = {**opening, "rank": rank, "size": size, "folder": folder}
                process.stdin.write(json.dumps(said).encode() + b"\n")
                process.stdin.flush()  # and left open: its end tells the other that we are gone
            _wait_until_ready(others, Path(folder))
            yield GlooPeers(0, size, Path(folder), settings)
            for process, _ in others:
                process.wait(TIMEOUT.total_seconds())
        except EngineDied as error:
            raise EngineDied(f"{error.message}{_last_words(others)}", hint=error.hint) from error
        finally:
            for process, kept in others:
                process.kill()
                process.wait()
                assert process.stdin is not None
                process.stdin.close()
                kept.close()


def _wait_until_ready(others: Sequence[tuple[subprocess.Popen[bytes], IO[bytes]]], folder: Path) -> None:
    """Until all have loaded: meeting then takes no time, and one that ends before is noticed."""
    while not all((folder / f"{rank}.ready").exists() for rank in range(1, len(others) + 1)):
        if any(process.poll() is not None for process, _ in others):
            raise EngineDied("a process of this training ended while it loaded", hint="see what it said")
        time.sleep(POLL_S)


def _last_words(others: Sequence[tuple[subprocess.Popen[bytes], IO[bytes]]]) -> str:
    """What processes that ended had to say."""
    found = []
    for rank, (process, log) in enumerate(others, 1):
        if process.poll() is not None:
            log.seek(0)
            said = log.read()[-LAST_WORDS:].decode("utf-8", "replace").strip().splitlines()
            found.append(f"; process {rank} ended with {process.returncode}: {said[-1] if said else 'no word'}")
    return "".join(found)
