"""The folder of a training run: what it is, how far it came, and its state, each written whole or not at all.

    run.json          what the run is: settings, parent, data; a run goes on only as what it began
    history.jsonl     one line a step
    state-00000100/   weights and optimizer in safetensors, numbers in JSON, after that many steps
    best-00000080.safetensors
    result.json       there when the run is finished

Nothing here is unpickled. It knows no model: tensors have names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file
from torch import Tensor

from temper.errors import Invalid, MalformedFile

RUN, HISTORY, RESULT = "run.json", "history.jsonl", "result.json"
_TENSORS, _NUMBERS = "tensors.safetensors", "state.json"
MAX_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stood after `step` steps."""

    step: int
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]


class Run:
    """One run on disk. One process writes it."""

    def __init__(
        self, folder: Path, what: Mapping[str, Any], resolved: Mapping[str, Any], *, along: bool = False
    ) -> None:
        """Begin the run, or go on with the one that is there. `along` with another process, nothing is written.

        `what` says all that decides the result. `resolved` holds what `auto` became; a run that goes on keeps its
        own (`self.resolved`).

        Raises:
            Invalid: the folder holds another run, a finished one, or something else.
        """
        self.folder = folder
        self._along = along
        what = json.loads(json.dumps(what))
        if folder.exists() and not folder.is_dir():
            raise Invalid(f"a run needs a folder, but '{folder}' is a file", param="out", hint="name another one")
        if (folder / RESULT).is_file():
            raise Invalid(f"the run in '{folder}' is finished, and a run is not trained twice", param="out",
                          hint="name another folder, or move it away")  # fmt: skip
        if (folder / RUN).is_file():
            known = _read_json(folder / RUN)
            if differences := _differences(known.get("what", {}), what):
                raise Invalid(
                    f"the run in '{folder}' goes on as what it began, but {', '.join(differences[:MAX_SHOWN])} differ",
                    param="out",
                    hint="give the same recipe, data and model, or another folder",
                )
            self.resolved: Mapping[str, Any] = known["resolved"]
        else:
            if folder.exists() and any(folder.iterdir()):
                raise Invalid(f"a run needs a new or an empty folder, but '{folder}' holds other things", param="out",
                              hint="name another one")  # fmt: skip
            folder.mkdir(parents=True, exist_ok=True)
            self.resolved = dict(resolved)
            _write(folder / RUN, json.dumps({"schema": "temper.run/1", "what": what, "resolved": self.resolved}))

    def load(self) -> State | None:
        """The newest state; None for a run that has none yet. Lines of history beyond it are taken back.

        Raises:
            MalformedFile: a state is damaged.
        """
        states = sorted(self.folder.glob("state-*"))
        step = 0
        state = None
        if states:
            try:
                numbers = _read_json(states[-1] / _NUMBERS)
                step = int(numbers["step"])
                state = State(step, load_file(states[-1] / _TENSORS), numbers)
            except Exception as error:
                raise MalformedFile(
                    f"the state in '{states[-1]}' cannot be read: {str(error)[:200]}",
                    hint="remove it: the run goes on from an earlier one, or anew",
                ) from error
        if self._along:
            return state
        kept = [line for line in self.history() if line["step"] <= step]
        _write(self.folder / HISTORY, "".join(json.dumps(line) + "\n" for line in kept))
        return state

    def save(self, step: int, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Write a state, then remove those before it and what they alone needed."""
        part = self.folder / ".state.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _save_tensors(part / _TENSORS, tensors)
        _write(part / _NUMBERS, json.dumps({**numbers, "step": step}))
        _sync(part)
        name = f"state-{step:08}"
        shutil.rmtree(self.folder / name, ignore_errors=True)
        part.rename(self.folder / name)
        _sync(self.folder)
        for old in self.folder.glob("state-*"):
            if old.name != name:
                shutil.rmtree(old)
        for path in self.folder.glob("peer-*.safetensors"):
            if not path.stem.endswith(f"-{step:08}"):
                path.unlink()
        best = numbers.get("best_step")
        for path in self.folder.glob("best-*.safetensors"):
            if best is None or path.name != _best_name(best):
                path.unlink()

    def save_peer(self, rank: int, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Write what process `rank` must keep; it counts once a state of that step is there."""
        part = self.folder / f".peer-{rank}.part"
        _save_tensors(part, tensors)
        part.replace(self.folder / f"peer-{rank}-{step:08}.safetensors")

    def load_peer(self, rank: int, step: int) -> dict[str, Tensor]:
        """What process `rank` kept with the state of `step`."""
        return dict(load_file(self.folder / f"peer-{rank}-{step:08}.safetensors"))

    def save_best(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the best weights so far; they count once a state names them."""
        part = self.folder / ".best.part"
        _save_tensors(part, tensors)
        part.replace(self.folder / _best_name(step))

    def load_best(self, step: int) -> Mapping[str, Tensor]:
        """The weights kept at `step`."""
        return dict(load_file(self.folder / _best_name(step)))

    def record(self, line: Mapping[str, Any]) -> None:
        """Add one step to the history."""
        with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """All steps so far. A last line that a kill cut short is none."""
        path = self.folder / HISTORY
        found = []
        for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def note(self, name: str) -> dict[str, Any] | None:
        """What was noted under this name; None where nothing was."""
        path = self.folder / f"{name}.json"
        return _read_json(path) if path.is_file() else None

    def put_note(self, name: str, what: Mapping[str, Any]) -> None:
        """Note what the run decided once and keeps to."""
        _write(self.folder / f"{name}.json", json.dumps(what))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Say that all is done; states are no longer needed."""
        _write(self.folder / RESULT, json.dumps({"schema": "temper.result/1", **result}, indent=2))
        for old in (*self.folder.glob("state-*"), self.folder / ".state.part"):
            shutil.rmtree(old, ignore_errors=True)
        for path in (*self.folder.glob("best-*.safetensors"), *self.folder.glob("peer-*.safetensors")):
            path.unlink()


def finished(folder: Path, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the run in `folder` ended, and its checkpoints; None while it has not.

    `given` are the settings that its recipe names, in plain data; those that it leaves out are not compared.

    Raises:
        Invalid: it was trained by another recipe.
        MalformedFile: its result cannot be read.
    """
    if not (folder / RESULT).is_file():
        return None
    known = _read_json(folder / RUN).get("what", {}).get("recipe", {})
    if differences := _differences(known, _in(known, given)):
        raise Invalid(f"the run in '{folder}' was trained otherwise: {', '.join(differences[:MAX_SHOWN])} differ",
                      param="out", hint="name another folder, or move it away")  # fmt: skip
    return _read_json(folder / RESULT)


def _in(known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`known` with what is given in its place; a run does not know itself by everything."""
    return {
        name: _in(value, given[name]) if isinstance(value, dict) and name in given else given.get(name, value)
        for name, value in known.items()
    }


def _differences(known: Any, now: Any, prefix: str = "") -> list[str]:
    """Dotted names under which two descriptions differ."""
    if not (isinstance(known, dict) and isinstance(now, dict)):
        return [] if known == now else [prefix.removesuffix(".")]
    names: Sequence[str] = list(dict.fromkeys((*known, *now)))
    return [found for name in names for found in _differences(known.get(name), now.get(name), f"{prefix}{name}.")]


def _best_name(step: int) -> str:
    return f"best-{step:08}.safetensors"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
        return found
    except ValueError as error:
        raise MalformedFile(f"'{path}' cannot be read: {error}", hint="name another folder") from error


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: values.detach().contiguous() for name, values in tensors.items()}, path)
    _sync(path)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, "utf-8")
    _sync(part)
    part.replace(path)


def _sync(path: Path) -> None:
    """On the disk, not only on its way: a machine may lose its power too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
