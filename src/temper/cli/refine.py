"""`temper refine`: checkpoints made of checkpoints."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from temper import api
from temper.cli.command import command
from temper.cli.output import Output
from temper.errors import Invalid

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([kKmMgG])[bB]")
_UNITS: Final = {"k": 10**3, "m": 10**6, "g": 10**9}

SAY_EVERY_S = 10.0
"""Between two lines about a training run on standard error."""
LORA_LEARNING_RATE = 2e-4
"""Of `refine lora`: small new matrices take larger steps than a whole model."""


@click.group()
def refine() -> None:
    """Make checkpoints of checkpoints: quantize, export, train, merge, distill."""


@command(refine)
@click.argument("model", default=api.DEFAULT_MODEL)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--method",
    type=click.Choice(("rtn", "gptq", "awq", "nf4")),
    default="gptq",
    show_default=True,
    help="Round each weight by itself; make up for what rounding loses; scale inputs first; or 16 uneven levels.",
)
@click.option("--bits", type=click.Choice(("3", "4", "8")), help="Of each weight.  [default: 4]")
@click.option("--group", type=int, help="Inputs that share a scale; 0: a whole row.  [default: 32; nf4: 64]")
@click.option("--symmetric/--asymmetric", default=True, show_default=True, help="Whether groups choose their zero.")
@click.option("--activations", type=click.Choice(("8", "16")), default="16", show_default=True,
              help="8: engines round them to int8 token by token where weights have 8 bits (W8A8).")  # fmt: skip
@click.option("--budget-bits", type=float, help="Mean bits of a weight, scales among them: layers get different bits.")
@click.option("--size", help="The same as bytes of all weights, such as 90MB.")
@click.option("--choices", help="Bits that a layer may get under a budget.  [default: 3,4,8]")
@click.option("--text", type=click.Path(path_type=Path), help="Calibration text.  [default: the model writes its own]")
@click.option("--calibration-tokens", type=click.IntRange(16), default=16384, show_default=True)
@click.option("--act-order/--no-act-order", default=True, show_default=True, help="GPTQ: largest inputs first.")
@click.option("--damping", type=float, default=0.01, show_default=True, help="GPTQ: share of the mean diagonal.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the text that it writes.")
@click.option("--no-measure", is_flag=True, help="Do not hold the result against its parent.")
def quantize(
    output: Output, model: str, out: Path, bits: str | None, activations: str, size: str | None, choices: str | None,
    text: Path | None, seed: int, no_measure: bool, **settings: Any,
) -> None:  # fmt: skip
    """Put the weights of MODEL on fewer bits and write a checkpoint to the folder OUT.

    OUT is read by every engine here, by vLLM and by transformers (compressed-tensors; NF4: bitsandbytes).
    """
    with output.progress() as progress:
        found = api.quantize(
            model, out, text=text, seed=seed, measure=not no_measure, progress=progress, where=output.place(),
            bits=None if bits is None else int(bits), activation_bits=int(activations), size_bytes=_bytes(size),
            choices=_numbers(choices), **settings,
        )  # fmt: skip
    if output.json:
        output.document(**found)
        return
    click.echo(f"{found['out']}: {found['num_bytes'] / 1e6:.1f} MB of {found['parent_bytes'] / 1e6:.1f} MB")
    for suite in found["measured"].get("suites", ()):
        for name, metric in suite["metrics"].items():
            low, high = metric["interval"] or (None, None)
            between = "" if low is None else f" ({low:.4g} … {high:.4g})"
            click.echo(f"{name} {metric['value']:.4g}{between}: {metric['meaning']}")
    layers = found["step"]["measured"].get("bits")
    if layers:
        shares = {bits: sum(value == bits for value in layers.values()) for bits in sorted(set(layers.values()))}
        told = ", ".join(f"{count} of {len(layers)} parts on {bits} bits" for bits, count in shares.items())
        click.echo(f"{told}: {found['step']['measured']['mean_bits']:.2f} bits a weight")


@command(refine)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--search", type=click.IntRange(1), metavar="TRIALS", help="Train so many times with other settings.")
@click.option("--over", help="Fields that a search varies, with commas between.  [default: all that say their range]")
def train(output: Output, recipe: Path, changes: tuple[str, ...], search: int | None, over: str | None) -> None:
    """Train a model as the TOML file RECIPE says, with fields changed by KEY=VALUE (docs/training.md).

    A run that was killed goes on when the same command is given again, and ends in the same weights.
    """
    if search is not None:
        _search(output, recipe, changes, search, over)
        return
    _train(output, recipe, changes)


@command(refine)
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--rank", type=click.IntRange(1), help="Of the matrices.  [default: 16]")
@click.option("--four-bit", is_flag=True, help="Keep the frozen weights in NF4: QLoRA.")
def lora(
    output: Output, model: str, data: Path, out: Path, changes: tuple[str, ...], rank: int | None, four_bit: bool
) -> None:
    """Train an adapter for MODEL on DATA and write it to OUT, in PEFT's format.

    Any field of a training recipe is changed by KEY=VALUE (docs/training.md): `epochs=3 learning_rate=1e-4`.
    """
    matrices = {"rank": rank, "base": "nf4" if four_bit else None}
    recipe = {
        "model": model,
        "out": str(out),
        "data": {"train": [str(data)]},
        "optimizer": {"learning_rate": LORA_LEARNING_RATE},
        "lora": {name: value for name, value in matrices.items() if value is not None},
    }
    _train(output, recipe, changes)


@command(refine)
@click.argument("adapter", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--model", help="The checkpoint to merge it into.  [default: the one that the adapter names]")
@click.option("--weight", type=float, default=1.0, show_default=True, help="Share of the adapter that is added.")
def merge(output: Output, adapter: Path, out: Path, model: str | None, weight: float) -> None:
    """Add ADAPTER into the weights that it was trained beside and write a checkpoint to the folder OUT."""
    with output.progress() as progress:
        found = api.merge(adapter, out, model=model, weight=weight, progress=progress, where=output.place())
    if output.json:
        output.document(**found)
        return
    click.echo(f"{found['out']}: {found['model']} with {adapter} in it, {found['num_bytes'] / 1e6:.1f} MB")


@command(refine)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
def distill(output: Output, recipe: Path, changes: tuple[str, ...]) -> None:
    """Make a smaller model that predicts what a larger one does, as the TOML file RECIPE says (docs/distilling.md).

    A run that was killed goes on when the same command is given again, and ends in the same weights.
    """
    with output.progress() as progress:
        found = api.distill(recipe, changes, progress=progress, watch=_watch(output), where=output.place())
    if output.json:
        output.document(**found)
        return
    cut = found["cut"]
    click.echo(f"kept {len(cut['kept_layers'])} layers, {cut['mlp_width']} neurons in each MLP")
    for name in ("held_out_clean", "held_out_adversarial"):
        if name in found["step"]["measured"]:
            click.echo(f"{name.replace('_', ' ')}: {found['step']['measured'][name]:.4g} nats a token")
    _say_trained(found)


def _train(output: Output, recipe: Path | Mapping[str, Any], changes: tuple[str, ...]) -> None:
    with output.progress() as progress:
        found = api.train(recipe, changes, progress=progress, watch=_watch(output), where=output.place())
    if output.json:
        output.document(**found)
        return
    _say_trained(found)


def _say_trained(found: Mapping[str, Any]) -> None:
    outcome = found["outcome"]
    held_out = f", held out {outcome['best_loss']:.4g} at step {outcome['best_step']}" if outcome["best_step"] else ""
    early = ", stopped early" if outcome["stopped_early"] else ""
    click.echo(f"{outcome['num_steps']} steps{early}: loss {found['history'][-1]['loss']:.4g}{held_out}")
    if replay := found["step"]["measured"].get("replay"):
        low, high = replay["interval"] or (None, None)
        sure = "" if low is None else f" ({low:+.4f} … {high:+.4f})"
        click.echo(f"forgot {replay['forgotten']:+.4f} nats a token{sure} of what is replayed")
    for name, path in found["checkpoints"].items():
        click.echo(f"{name:6}{path}")
    click.echo(f"curve {found['out']}/loss.html")


def _search(output: Output, recipe: Path, changes: tuple[str, ...], num_trials: int, over: str | None) -> None:
    names = [name.strip() for name in (over or "").split(",") if name.strip()]
    with output.progress() as progress:
        found = api.search_training(
            recipe, changes, num_trials=num_trials, over=names,
            progress=progress, watch=_watch(output), where=output.place(),
        )  # fmt: skip
    if output.json:
        output.document(**found)
        return
    for trial in sorted(found["trials"], key=lambda trial: (trial["loss"] is None, trial["loss"])):
        loss = "failed" if trial["loss"] is None else f"{trial['loss']:.4f}"
        values = ", ".join(f"{path}={value:.3g}" for path, value in trial["values"].items())
        click.echo(f"{loss}  trial {trial['number']:3}  {values}")
    click.echo(f"best: {found['best']['folder']}")


def _watch(output: Output) -> Callable[[Mapping[str, Any]], None]:
    """Says now and then how the loss goes, on standard error; every evaluation is said."""
    said_at = -SAY_EVERY_S

    def watch(line: Mapping[str, Any]) -> None:
        nonlocal said_at
        now = time.monotonic()
        if "validation" in line or now - said_at >= SAY_EVERY_S:
            said_at = now
            held_out = f", held out {line['validation']:.4f}" if "validation" in line else ""
            speed = line["tokens"] / max(line["seconds"], 1e-3)
            output.note(f"step {line['step']}: loss {line['loss']:.4f}{held_out}, {speed:,.0f} tokens/s")

    return watch


@command(refine)
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
def export(output: Output, model: str, out: Path) -> None:
    """Write MODEL as the GGUF file OUT, which llama.cpp reads too. No value changes."""
    with output.progress() as progress:
        found = api.export(model, out, progress=progress, where=output.place())
    if output.json:
        output.document(**found)
        return
    formats = ", ".join(f"{count} tensors in {name}" for name, count in found["formats"].items())
    click.echo(f"{found['out']}: {found['num_bytes'] / 1e6:.1f} MB, {formats}")


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Invalid(f"a size is a number with kB, MB or GB, but is '{text}'", param="size", hint="write 90MB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise Invalid(f"choices are numbers of bits with commas between them, but are '{text}'", param="choices",
                      hint="write 3,4,8") from None  # fmt: skip
