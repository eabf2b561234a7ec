"""What a model loses when one part of it is put on fewer bits and all else stays as it is.

The loss is the Kullback–Leibler divergence of the predictions from the unchanged model's, nats a token. Everything
before the part computes what it always does, so each decoder layer's input is kept and only what follows is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from temper.refine.quantize.budget import Choice
from temper.refine.quantize.grid import Grid, round_to_nearest
from temper.refine.quantize.linears import linears, units, weight_of
from temper.refine.telling import Tell


def measure(model: Any, grids: Sequence[Grid], windows: Sequence[Sequence[int]], tell: Tell) -> dict[str, list[Choice]]:
    """For each unit and each grid: its size, and the loss over `windows` when it alone is rounded to nearest.

    That it is not the recipe's own method keeps this to minutes; a better method loses less everywhere.
    """
    layers = linears(model)
    found: dict[str, list[Choice]] = {}
    with torch.inference_mode():
        kept = [_Kept(model, window) for window in windows]
        parts = units(layers)
        for done, (unit, names) in enumerate(parts.items()):
            tell("measuring sensitivity", done, len(parts))
            found[unit] = [
                Choice(grid.bits, stored_bits(layers, names, grid), _loss(model, layers, names, grid, kept))
                for grid in grids
            ]
    tell("measuring sensitivity", len(parts), len(parts))
    return found


def stored_bits(layers: Mapping[str, Any], names: Sequence[str], grid: Grid) -> float:
    """Bits that the weights of `names` take on `grid`, scales among them."""
    return sum(float(layers[name].weight.numel()) * grid.bits_per_weight(layers[name].in_features) for name in names)


def _loss(model: Any, layers: Mapping[str, Any], names: Sequence[str], grid: Grid, kept: Sequence[_Kept]) -> float:
    before = {name: layers[name].weight.data for name in names}
    try:
        for name in names:
            layers[name].weight.data = torch.from_numpy(round_to_nearest(weight_of(layers[name]), grid).values())
        number = _layer_number(model, names[0])
        losses = [one.divergence(model, number) for one in kept]
    finally:
        for name, values in before.items():
            layers[name].weight.data = values
    return sum(losses) / len(losses)


def _layer_number(model: Any, name: str) -> int:
    """Which decoder layer `name` lies in; 0 for what lies in none."""
    decoder = model.get_decoder()
    for number, layer in enumerate(decoder.layers):
        if any(module is model.get_submodule(name) for module in layer.modules()):
            return number
    return 0


class _Pass(torch.nn.Module):
    """Stands where a decoder layer was whose output is known."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.attention_type = getattr(layer, "attention_type", "full_attention")

    def forward(self, hidden_states: Any, *args: Any, **named: Any) -> Any:
        return hidden_states


class _Kept:
    """One window: the input of each decoder layer, and what the unchanged model predicts."""

    def __init__(self, model: Any, window: Sequence[int]) -> None:
        self._tokens = torch.tensor([list(window)])
        self._at: list[Any] = []

        def note(module: Any, given: Any) -> None:
            self._at.append(given[0])

        hooks = [layer.register_forward_pre_hook(note) for layer in model.get_decoder().layers]
        try:
            self._truth = self._predict(model)
        finally:
            for hook in hooks:
                hook.remove()

    def divergence(self, model: Any, number: int) -> float:
        """Mean divergence of what the model predicts now, where nothing before layer `number` has changed."""
        with _beginning_at(model, number, self._at[number]):
            found = self._predict(model)
        return float((self._truth.exp() * (self._truth - found)).sum(-1).mean())

    def _predict(self, model: Any) -> Any:
        logits = model(self._tokens, use_cache=False).logits[0]
        return torch.log_softmax(logits.float(), dim=-1)


@contextmanager
def _beginning_at(model: Any, number: int, hidden: Any) -> Iterator[None]:
    """Layers before `number` hand on what they get, and layer `number` reads `hidden`."""
    layers = model.get_decoder().layers
    first = list(layers[:number])

    def replaced(module: Any, given: Any) -> Any:
        return (hidden, *given[1:])

    hook = layers[number].register_forward_pre_hook(replaced)
    for at, layer in enumerate(first):
        layers[at] = _Pass(layer)
    try:
        yield
    finally:
        hook.remove()
        for at, layer in enumerate(first):
            layers[at] = layer
