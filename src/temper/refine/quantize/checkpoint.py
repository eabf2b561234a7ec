"""`quantize`: a checkpoint with its linear layers on fewer bits, by the recipe.

What is measured of the result is the caller's matter (`measure/quality`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from temper.errors import Invalid
from temper.models.manifest import Step
from temper.refine.formats import bitsandbytes, packed
from temper.refine.formats.folder import check_free
from temper.refine.network import Network
from temper.refine.quantize.budget import Choice, share_out
from temper.refine.quantize.grid import Grid
from temper.refine.quantize.linears import linears, round_all, units, weight_of
from temper.refine.quantize.recipe import QuantizeRecipe
from temper.refine.quantize.sensitivity import measure, stored_bits
from temper.refine.telling import Tell

Tensors = dict[str, NDArray[Any]]


def quantize(
    network: Network, recipe: QuantizeRecipe, token_ids: Sequence[int], data_sha256: str, out: Path, tell: Tell
) -> Step:
    """Write the quantized checkpoint to `out` and return what was done.

    `token_ids` are calibration text in the model's tokens; recipes that do not calibrate read none.

    Raises:
        Invalid: `out` is taken, the group does not fit a layer, the budget is too small, or there is too little
            calibration text.
    """
    check_free(out)
    check_fits(network, recipe)
    model = network.model
    layers = linears(model)
    windows = windows_of(recipe, token_ids) if recipe.calibrates else []
    measured: dict[str, Any] = {}
    config: dict[str, Any]
    tensors: Tensors = {}
    if recipe.method == "nf4":
        block = recipe.group or 0
        for done, (name, layer) in enumerate(layers.items()):
            tell("quantizing", done, len(layers))
            tensors |= bitsandbytes.packed(name, weight_of(layer), block)
        config = bitsandbytes.quantization_config(["lm_head"])
    else:
        grids, measured = choose_grids(model, recipe, windows, tell)
        matrices = round_all(model, recipe, grids, windows, tell)
        whole = {name for name, grid in grids.items() if recipe.rounds_activations(grid.bits)}
        for name, matrix in matrices.items():
            tensors |= packed.whole_bytes(name, matrix) if name in whole else packed.packed(name, matrix)
        config = packed.quantization_config(grids, ["lm_head"], dynamic_int8=whole)
    replaced = {f"{name}.weight" for name in layers}
    plain = {name: values for name, values in network.weights().items() if name not in replaced}
    step = Step(
        recipe="quantize",
        settings={**asdict(recipe), "choices": list(recipe.choices)},
        parent=network.checkpoint.manifest_hash(),
        parent_source=network.checkpoint.source,
        data_sha256=data_sha256 if recipe.calibrates else None,
        measured=measured,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    network.write(
        out,
        {**network.config, "dtype": "bfloat16", "quantization_config": config},
        plain | {name: torch.from_numpy(values) for name, values in tensors.items()},
        step,
    )
    return step


def check_fits(network: Network, recipe: QuantizeRecipe) -> None:
    """Refuse what needs no calibration to be refused.

    Raises:
        Invalid: the group does not fit a layer, or the budget is too small.
    """
    if recipe.method == "nf4":
        return
    layers = linears(network.model)
    smallest = recipe.grid((recipe.choices or (recipe.bits or 0,))[0])
    for name, layer in layers.items():
        smallest.check(name, layer.in_features)
    if recipe.budget_bits is not None:
        least = {
            unit: [Choice(smallest.bits, stored_bits(layers, names, smallest), 0.0)]
            for unit, names in units(layers).items()
        }
        share_out(least, sum(layer.weight.numel() for layer in layers.values()), recipe.budget_bits)


def choose_grids(
    model: Any, recipe: QuantizeRecipe, windows: Sequence[Sequence[int]], tell: Tell
) -> tuple[dict[str, Grid], dict[str, Any]]:
    """The grid of each layer, and what was measured to choose them under a budget.

    Raises:
        Invalid: the budget is too small.
    """
    layers = linears(model)
    if recipe.budget_bits is None:
        return dict.fromkeys(layers, recipe.grid(recipe.bits or 0)), {}
    num_weights = sum(layer.weight.numel() for layer in layers.values())
    choices = [recipe.grid(bits) for bits in recipe.choices]
    found = measure(model, choices, _few(windows, recipe.sensitivity_tokens), tell)
    taken = share_out(found, num_weights, recipe.budget_bits)
    grids = {name: recipe.grid(taken[unit]) for unit, names in units(layers).items() for name in names}
    stored = sum(
        choice.num_bits_stored for unit, all_ in found.items() for choice in all_ if choice.bits == taken[unit]
    )
    measured = {
        "bits": taken,
        "mean_bits": stored / num_weights,
        "sensitivity": {unit: {str(one.bits): one.loss for one in all_} for unit, all_ in found.items()},
        "sensitivity_is": "KL of the predictions, nats a token, with this unit alone rounded to nearest",
        "sum_of_losses": sum(one.loss for unit, all_ in found.items() for one in all_ if one.bits == taken[unit]),
    }
    return grids, measured


def budget_bits(network: Network, size_bytes: int) -> float:
    """The bits that a weight may have on average where all weights may take `size_bytes`.

    Raises:
        Invalid: what is not quantized takes more than that alone.
    """
    layers = linears(network.model)
    replaced = {f"{name}.weight" for name in layers}
    rest: int = sum(values.nbytes for name, values in network.weights().items() if name not in replaced)
    if size_bytes <= rest:
        raise Invalid(
            f"a size must hold what stays in bfloat16, {rest / 1e6:.1f} MB, and more, but is {size_bytes / 1e6:.1f} MB",
            param="size",
            hint="embedding, head and norms are not quantized",
        )
    num_weights: int = sum(layer.weight.numel() for layer in layers.values())
    return 8 * (size_bytes - rest) / num_weights


def windows_of(recipe: QuantizeRecipe, token_ids: Sequence[int]) -> list[Sequence[int]]:
    """Calibration text as the windows that are read together.

    Raises:
        Invalid: there is too little.
    """
    wanted = recipe.calibration_tokens // recipe.window
    windows = [token_ids[at * recipe.window : (at + 1) * recipe.window] for at in range(wanted)]
    whole = [window for window in windows if len(window) == recipe.window]
    if len(whole) < wanted:
        raise Invalid(
            f"calibration wants {wanted} windows of {recipe.window} tokens, but the text has {len(token_ids)} tokens",
            param="calibration_tokens",
            hint="give more text, or fewer calibration tokens",
        )
    return whole


def _few(windows: Sequence[Sequence[int]], num_tokens: int) -> list[Sequence[int]]:
    """The first `num_tokens` of the windows, the last one cut."""
    found: list[Sequence[int]] = []
    for window in windows:
        if num_tokens <= 0:
            break
        found.append(window[:num_tokens])
        num_tokens -= len(window)
    return [window for window in found if len(window) > 1]
