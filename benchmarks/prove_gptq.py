"""GPTQ beside llm-compressor's, layer by layer: the same weights and inputs must leave the same error.

llm-compressor quantizes the default model. Then its network is walked, layer by layer: each layer's inputs are those
that its own rounding made, and on them our GPTQ rounds the same weights with such scales as it takes (those of the
whole range of a group). An error is the mean square of what a layer's outputs lose over those inputs. Where the two
differ, ours are put into its network, and the perplexity on held-out text says what the difference is worth.

    make prove gptq ARGS='--llm-compressor PEERS/llm_compressor'
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prove_quantize import WINDOW, calibration, held_out, nats, predict, recipes, their_weights, whole_range

import report
from temper import api
from temper.measure.quality.intervals import paired_mean
from temper.refine.network import Network, open_network
from temper.refine.quantize import gptq
from temper.refine.quantize.calibrate import Walk
from temper.refine.quantize.checkpoint import windows_of
from temper.refine.quantize.grid import Float32, round_to_nearest
from temper.refine.quantize.linears import linears, round_all, weight_of
from temper.refine.quantize.recipe import QuantizeRecipe

STATE = Path(__file__).parent.parent / "build" / "prove" / "gptq"
AGREES = 0.02
"""By how much two errors may differ."""
SHARE = 0.95
"""Of the layers, that must agree."""


def compared(
    network: Network, recipe: QuantizeRecipe, windows: Sequence[Sequence[int]], theirs: Mapping[str, torch.Tensor]
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """The errors of every layer along their network, and our weights where they differ; `network` is theirs then."""
    names = {id(module): name for name, module in network.model.named_modules()}
    rows, differing = [], {}
    walk = Walk(network.model, windows)
    for number, decoder_layer in enumerate(walk.layers):
        prefix = names[id(decoder_layer)]
        for part, inputs in walk.inputs(number).items():
            name, layer = f"{prefix}.{part}.weight", decoder_layer.get_submodule(part)
            weight, grid = weight_of(layer), recipe.grid(recipe.bits or 0)
            ours = gptq.gptq(weight, inputs.second_moments, grid, act_order=recipe.act_order, damping=recipe.damping)
            made = {"ours": ours.values(), "theirs": theirs[name].numpy(),
                    "rounding": round_to_nearest(weight, grid, search=False).values()}  # fmt: skip
            moments = inputs.second_moments.astype(np.float32)
            errors = {who: lost(values - weight, moments) for who, values in made.items()}
            rows.append({"layer": number, "part": part, **errors})
            if abs(errors["ours"] / errors["theirs"] - 1) > AGREES:
                differing[name] = torch.from_numpy(made["ours"])
            layer.weight.data = theirs[name].clone()
        walk.advance(number, changed=True)
        print(f"layer {number + 1} of {len(walk.layers)}, {len(differing)} weights differ so far", flush=True)
    network.put(theirs)
    return rows, differing


def lost(off: Float32, moments: Float32) -> float:
    return float(np.vdot(off @ moments, off))


def losses(model: Any, windows: Sequence[Sequence[int]]) -> list[float]:
    """Mean nats a token of each window."""
    return [nats(predict(model, window), window) for window in windows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm-compressor", type=Path, required=True, help="where peers/llm_compressor.sh set up")
    parser.add_argument("--model", default=api.DEFAULT_MODEL)
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--calibration-tokens", type=int, default=8192)
    given = parser.parse_args()
    torch.set_num_threads(2)
    STATE.mkdir(parents=True, exist_ok=True)
    cache = api.place().cache_dir
    network = open_network(given.model, cache)
    ids = network.checkpoint.tokenizer.encode(held_out(given.windows * WINDOW * 5))
    read = [ids[at * WINDOW : (at + 1) * WINDOW] for at in range(given.windows)]
    token_ids = calibration(network, given.calibration_tokens, STATE)
    name = f"int4 g{given.group} gptq"
    recipe = recipes([given.group], given.calibration_tokens, judged=True)[name]
    theirs = their_weights(network, recipe, token_ids, given.llm_compressor, STATE)
    found = {"unchanged": losses(network.model, read)}
    with whole_range():
        rows, differing = compared(network, recipe, windows_of(recipe, token_ids), theirs)
        found["llm-compressor's"] = losses(network.model, read)
        network.put(differing)
        found["llm-compressor's, with ours where they differ"] = losses(network.model, read)
        own = open_network(given.model, cache)
        grids = dict.fromkeys(linears(own.model), recipe.grid(recipe.bits or 0))
        round_all(own.model, recipe, grids, windows_of(recipe, token_ids), lambda what, done, total: None)
        found["ours"] = losses(own.model, read)
    agreeing = 1 - len(differing) / len(rows)
    report.write("gptq", "GPTQ beside llm-compressor's, layer by layer", body(rows, found, given),
                 {"layers": rows, "nats": found, "agreeing": agreeing})  # fmt: skip
    return 0 if agreeing >= SHARE else 1


def body(rows: Sequence[Mapping[str, Any]], found: Mapping[str, list[float]], given: argparse.Namespace) -> str:
    parts, outliers = [], []
    for part in dict.fromkeys(row["part"] for row in rows):
        of_part = [row for row in rows if row["part"] == part]
        ratios = [row["ours"] / row["theirs"] for row in of_part]
        parts.append({
            "part": part, "layers": len(ratios), "error, ours ÷ llm-compressor's": f"{statistics.median(ratios):.4f}",
            "lowest": f"{min(ratios):.4f}", "highest": f"{max(ratios):.4f}",
            f"within {AGREES:.0%}": sum(abs(ratio - 1) <= AGREES for ratio in ratios),
            "rounding's ÷ ours, median": f"{statistics.median(row['rounding'] / row['ours'] for row in of_part):.2f}",
        })  # fmt: skip
        outliers += [f"{part} of layer {row['layer']} ({ratio:.3f})" for row, ratio in zip(of_part, ratios, strict=True)
                     if abs(ratio - 1) > AGREES]  # fmt: skip
    judged = []
    for name, values in found.items():
        row = {
            "network": name,
            "perplexity": f"{math.exp(statistics.fmean(values)):.2f}",
            "against llm-compressor's": "",
        }
        if name not in ("unchanged", "llm-compressor's"):
            pairs = zip(values, found["llm-compressor's"], strict=True)
            interval = paired_mean([a - b for a, b in pairs], 0.95, None)
            if interval:
                ends = (f"{100 * math.expm1(end):+.1f}" for end in (interval.low, interval.high))
                row["against llm-compressor's"] = " … ".join(ends) + " %"
        judged.append(row)
    return "\n\n".join([
        f"`{given.model}`, 4 bits, symmetric, groups of {given.group}, scales of the whole range; calibration on "
        f"{given.calibration_tokens} tokens that the model wrote itself. Errors over the inputs that llm-compressor's "
        f"rounding of the layers before makes.",
        report.table(parts),
        f"Further apart: {', '.join(outliers) or 'none'}.",
        f"Held-out text, {given.windows} windows of {WINDOW} tokens; intervals of 95 %, paired by window.",
        report.table(judged),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
