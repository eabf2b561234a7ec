"""Which layers of a network are quantized, and how they are put on their grids.

Every linear layer but the head. Head, embedding and norms stay in bfloat16: a small model's quality hangs on them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch

from temper.refine.quantize.awq import Inputs, fold, search_scales
from temper.refine.quantize.calibrate import Walk
from temper.refine.quantize.gptq import gptq
from temper.refine.quantize.grid import Float32, Grid, Quantized, round_to_nearest
from temper.refine.quantize.recipe import QuantizeRecipe
from temper.refine.telling import Tell

_UNIT: Final = re.compile(r"(.*\.layers\.\d+)\.([^.]+)\..*")


def linears(model: Any) -> dict[str, Any]:
    """The layers that are quantized, by name, in the order of the network."""
    head = model.get_output_embeddings()
    return {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}


def units(names: Mapping[str, Any]) -> dict[str, list[str]]:
    """Layers that get their bits together: the attention or the MLP of one decoder layer.

    Engines that join q, k, v or gate and up need one scheme for what they join.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        match = _UNIT.fullmatch(name)
        found.setdefault(f"{match[1]}.{match[2]}" if match else name, []).append(name)
    return found


def weight_of(layer: Any) -> Float32:
    """The weight [N, K] of a linear layer."""
    values: Float32 = layer.weight.detach().numpy().astype(np.float32)
    return values


def round_all(
    model: Any, recipe: QuantizeRecipe, grids: Mapping[str, Grid], windows: Sequence[Sequence[int]], tell: Tell
) -> dict[str, Quantized]:
    """Each layer's weight on its grid, by the recipe's method; the model's own weights are replaced by them.

    `windows` are calibration text, of which `rtn` reads none. GPTQ shows each decoder layer what the
    rounded ones before it make. AWQ's scales move into what makes the inputs.

    Raises:
        Invalid: the inputs of a layer are not finite, or say too little.
    """
    layers = linears(model)
    found: dict[str, Quantized] = {}

    def put(name: str, inputs: Inputs | None) -> None:
        tell("quantizing", len(found), len(layers))
        found[name] = _rounded(weight_of(layers[name]), inputs, recipe, grids[name])
        layers[name].weight.data = torch.from_numpy(found[name].values())

    if recipe.method in ("gptq", "awq"):
        names = {id(module): name for name, module in model.named_modules()}
        walk = Walk(model, windows)
        for number, layer in enumerate(walk.layers):
            at = names[id(layer)]
            seen = {f"{at}.{name}": inputs for name, inputs in walk.inputs(number).items()}
            if recipe.method == "awq":
                walk.advance(number, changed=False)
                seen = _scale(at, dict(model.named_modules()), seen, grids)
            for name in [name for name in layers if name.startswith(f"{at}.")]:
                put(name, seen.get(name))
            if recipe.method == "gptq":
                walk.advance(number, changed=True)
    for name in layers:
        if name not in found:
            put(name, None)
    tell("quantizing", len(layers), len(layers))
    return {name: found[name] for name in layers}


def _rounded(weight: Float32, inputs: Inputs | None, recipe: QuantizeRecipe, grid: Grid) -> Quantized:
    if inputs is None:
        return round_to_nearest(weight, grid)
    if recipe.method == "gptq":
        return gptq(
            weight,
            inputs.second_moments,
            grid,
            act_order=recipe.act_order,
            damping=recipe.damping,
            shrinkage=inputs.chance,
        )
    return round_to_nearest(weight, grid, np.diag(inputs.second_moments).astype(np.float32))


def _scale(
    layer: str, modules: Mapping[str, Any], inputs: Mapping[str, Inputs], grids: Mapping[str, Grid]
) -> dict[str, Inputs]:
    """AWQ's scales of one decoder layer, folded into it in place; returns the inputs as they are then."""
    found = dict(inputs)
    for maker, readers in _sites(layer, modules):
        weights = [f"{reader}.weight" for reader in readers]
        tensors: dict[str, Float32] = {
            f"{name}.weight": modules[name].weight.detach().numpy() for name in (maker, *readers)
        }
        seen = found[readers[0]]
        scaling = search_scales([tensors[name] for name in weights], seen, grids[readers[0]])
        for name, values in fold(tensors, scaling.scales, weights, f"{maker}.weight").items():
            modules[name.removesuffix(".weight")].weight.data = torch.from_numpy(values)
        smaller = 1 / scaling.scales.astype(np.float64)
        scaled = Inputs(seen.second_moments * np.outer(smaller, smaller), seen.mean_magnitude / scaling.scales)
        found |= dict.fromkeys(readers, scaled)
    return found


def _sites(layer: str, modules: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """(maker, readers) wherever a scale can be folded: norm → q, k, v; norm → gate, up; up → down.

    Values → o is left out: with grouped heads one value feeds several inputs of o. Layers of another make have none.
    """
    sites = [
        (f"{layer}.input_layernorm", tuple(f"{layer}.self_attn.{part}_proj" for part in "qkv")),
        (f"{layer}.post_attention_layernorm", tuple(f"{layer}.mlp.{part}_proj" for part in ("gate", "up"))),
        (f"{layer}.mlp.up_proj", (f"{layer}.mlp.down_proj",)),
    ]
    return [(maker, readers) for maker, readers in sites if all(name in modules for name in (maker, *readers))]
