"""What the inputs of each linear layer look like while a model reads text: the ground for GPTQ and AWQ.

One decoder layer after the other, over all windows, so that memory holds the K × K moments of one layer and no more.
Nothing is kept of the inputs themselves, and layers that read the same tensor share their moments.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from temper.errors import Invalid
from temper.refine.quantize.awq import Inputs


class Walk:
    """A model that reads windows of text layer by layer; in between, a layer may be changed.

    What a layer reads are the outputs of those before it as they are when `advance` is called: a layer that was rounded
    by then shows what its rounding did.
    """

    def __init__(self, model: Any, windows: Sequence[Sequence[int]]) -> None:
        """`windows` are token ids, all of one length, each read on its own.

        Raises:
            Invalid: they are of different lengths.
        """
        if len({len(window) for window in windows}) != 1:
            raise Invalid("calibration windows must have one length, but there are "
                          f"{sorted({len(window) for window in windows})}", param="window")  # fmt: skip
        self.layers: Sequence[Any] = model.get_decoder().layers
        self._arguments: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._hidden = [self._begin(model, window) for window in windows]
        self._next: list[Any] = []

    def inputs(self, number: int) -> dict[str, Inputs]:
        """Second moments and mean magnitudes at the inputs of every linear layer inside layer `number`, by their names
        within it. Those fed by one tensor get the same object.

        Raises:
            Invalid: inputs are not finite.
        """
        layer = self.layers[number]
        linears = {name: m for name, m in layer.named_modules() if isinstance(m, torch.nn.Linear)}
        taking = _Taking()
        hooks = [module.register_forward_pre_hook(taking.hook(name)) for name, module in linears.items()]
        try:
            self._next = []
            for hidden in self._hidden:
                self._next.append(self._run(number, hidden))
                taking.end_window()
        finally:
            for hook in hooks:
                hook.remove()
        return taking.found()

    def advance(self, number: int, *, changed: bool) -> None:
        """Go on behind layer `number`, with what it makes now where it was `changed` since `inputs`."""
        if changed or not self._next:
            self._next = [self._run(number, hidden) for hidden in self._hidden]
        self._hidden, self._next = self._next, []

    def _run(self, number: int, hidden: Any) -> Any:
        args, named = self._arguments[number]
        with torch.inference_mode():
            found = self.layers[number](hidden, *args, **named)
        return found[0] if isinstance(found, tuple) else found

    def _begin(self, model: Any, window: Sequence[int]) -> Any:
        """What the first layer reads; the first time also what else each layer is given."""
        seen: list[Any] = []

        def note(number: int) -> Callable[[Any, Any, Any], None]:
            def hook(module: Any, args: Any, named: Any) -> None:
                if number == 0:
                    hidden = args[0] if args else named["hidden_states"]
                    seen.append(hidden)
                    if self._arguments:
                        raise _Enough
                self._arguments[number] = (args[1:], {k: v for k, v in named.items() if k != "hidden_states"})

            return hook

        hooks = [
            layer.register_forward_pre_hook(note(number), with_kwargs=True) for number, layer in enumerate(self.layers)
        ]
        try:
            with torch.inference_mode():
                model(torch.tensor([list(window)]), use_cache=False)
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return seen[0]


class _Enough(Exception):
    """Ends a pass whose first layer has been reached."""


class _Taking:
    """Takes in the inputs of the linear layers of one decoder layer."""

    def __init__(self) -> None:
        self._moments: dict[str, _Moments] = {}
        self._leader: dict[str, str] = {}
        self._seen: dict[int, tuple[str, Any]] = {}  # the tensor too, so that no address is used twice

    def hook(self, name: str) -> Callable[[Any, Any], None]:
        def take(module: Any, given: Any) -> None:
            leader, _ = self._seen.setdefault(id(given[0]), (name, given[0]))
            self._leader[name] = leader
            if leader == name:
                self._moments.setdefault(name, _Moments(module.in_features)).take(given[0])

        return take

    def end_window(self) -> None:
        self._seen.clear()

    def found(self) -> dict[str, Inputs]:
        inputs = {name: moments.inputs(name) for name, moments in self._moments.items()}
        return {name: inputs[leader] for name, leader in self._leader.items()}


class _Moments:
    def __init__(self, width: int) -> None:
        self._second = torch.zeros(width, width, dtype=torch.float64)
        self._magnitude = torch.zeros(width, dtype=torch.float64)
        self._count = 0
        self._windows: list[float] = []  # what each has off the diagonal, squared

    def take(self, given: Any) -> None:
        rows = given.reshape(-1, given.shape[-1]).float()
        self._windows.append(_off_diagonal(rows))
        self._second += rows.T @ rows
        self._magnitude += rows.abs().sum(dim=0)
        self._count += rows.shape[0]

    def inputs(self, name: str) -> Inputs:
        second = (self._second / self._count).numpy()
        if not np.isfinite(second).all():
            raise Invalid(f"the inputs of '{name}' must be finite while it reads calibration text, but are not",
                          hint="the checkpoint is damaged, or the text is none of its language")  # fmt: skip
        magnitude = (self._magnitude / self._count).numpy().astype(np.float32)
        return Inputs(second, magnitude, self._chance(second))

    def _chance(self, second: NDArray[np.float64]) -> float:
        """How far moments off the diagonal are to be shrunk, for the least mean squared error.

        Source: Schäfer and Strimmer, "A Shrinkage Approach to Large-Scale Covariance Matrix Estimation and
        Implications for Functional Genomics", 2005, target D. Windows are the samples, for tokens of one text are
        alike: their own number would make it ten times too little.
        """
        num_windows = len(self._windows)
        whole = float(np.vdot(second, second)) - float(np.square(np.diag(second)).sum())
        if num_windows < 2 or whole <= 0:
            return 0.0  # one window does not say what another would
        variance = (statistics.fmean(self._windows) - whole) / (num_windows - 1)
        return min(max(variance / whole, 0.0), 1.0)


def _off_diagonal(rows: Any) -> float:
    """The squares of the second moments of `rows` [T, K] off their diagonal, summed; by way of [T, T]."""
    products = (rows @ rows.T).double()
    diagonal = rows.double().square().sum(dim=0)
    return float(products.square().sum() - diagonal.square().sum()) / len(rows) ** 2
