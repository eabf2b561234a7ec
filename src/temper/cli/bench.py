"""`temper bench`: load on an engine or a server, and what its clients see."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from temper import api
from temper.cli.command import command
from temper.cli.loads import list_of, load_options, take_load
from temper.cli.options import overrides, setting_options
from temper.cli.output import Output
from temper.cli.regression import load_text, print_regression
from temper.errors import Invalid

EXIT_FAILED, EXIT_INCONCLUSIVE = 1, 3


@command()
@click.option("--url", help="A running OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")
@click.option(
    "--model", "-m", help="With --url: the model's name there. Else: the checkpoint, in place of the profile's."
)
@click.option("--profile", default=api.DEFAULT_PROFILE, show_default=True, help="What to run in this process.")
@click.option(
    "--engines",
    callback=list_of(str),
    help="Compare engines on the same weights, in turns: native,torch,openvino,vllm,llamacpp.",
)
@click.option(
    "--peers",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder in which benchmarks/peers/*.sh set other engines up.  [default: peers in --home]",
)
@load_options
@click.option(
    "--rounds", type=click.IntRange(1), help="Repetitions, engines in turns.  [default: 4 with --engines, or 1]"
)
@click.option(
    "--processes", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes that send, for --url."
)
@click.option("--record", is_flag=True, help="Keep the result in the history, as a baseline for later ones.")
@click.option("--compare", is_flag=True, help="Judge the result against what was recorded under the same load.")
@click.option("--margin", type=float, help="With --compare: how much worse is no regression.  [default: 0.1]")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write charts into one HTML file.")
@setting_options
def bench(
    output: Output,
    url: str | None,
    model: str | None,
    profile: str,
    engines: tuple[str, ...],
    peers: Path | None,
    rounds: int | None,
    processes: int,
    record: bool,
    compare: bool,
    margin: float | None,
    html: Path | None,
    **arguments: Any,
) -> int:
    """Load an engine or a server and measure what its clients see.

    Without --url and --engines the profile runs in this process. Exits with 1 when a request failed or an SLO of
    the workload is broken, with 3 when an SLO needs more requests to tell or an engine of --engines is missing. With
    --compare also with 1 when a metric got worse than recorded, and with 3 when that cannot be told.
    """
    load = take_load(arguments)
    changes = overrides(arguments)
    if url is not None and (engines or changes):
        raise Invalid(
            "--url measures a server as it is: it goes with neither --engines nor profile options", param="url"
        )
    if model is not None and url is None:
        changes["engine.checkpoint"] = model
    end_servers_on_terminate()
    found = api.bench(
        profile,
        url=url,
        model=model if url is not None else None,
        engines=engines,
        peers=peers,
        load=load,
        rounds=rounds,
        processes=processes,
        record=record,
        compare=compare,
        margin=margin,
        tell=output.note,
        where=output.place(),
        **changes,
    )
    if html is not None:
        from temper.measure.page import page

        html.write_text(page(found), "utf-8")
        output.note(f"charts: {html}")
    if output.json:
        output.document(**found)
    else:
        _print(output, found)
    return _exit_code(found)


def end_servers_on_terminate() -> None:
    """A terminated measurement ends the servers that it started, as an interrupted one does."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _exit_code(found: Mapping[str, Any]) -> int:
    verdicts = {run["slo"]["verdict"] for run in found["runs"] if run["slo"] is not None}
    if "regression" in found:
        verdicts.add(found["regression"]["verdict"])
    if "fail" in verdicts or any(run["failures"] for run in found["runs"]):
        return EXIT_FAILED
    return EXIT_INCONCLUSIVE if "inconclusive" in verdicts or found["missing"] else 0


def _print(output: Output, found: Mapping[str, Any]) -> None:
    """Tables for people: the runs, the ratios, and everything that makes a figure doubtful."""
    _print_runs(output, found["runs"])
    if found["ratios"]:
        _print_ratios(output, found["ratios"])
    for name, quality in found["quality"].items():
        said = f"perplexity {quality['perplexity']}" if quality["perplexity"] is not None else quality["reason"]
        click.echo(f"quality of {name}: {said}")
    for entry in found["missing"]:
        click.echo(f"missing: {entry['engine']}: {entry['reason']} (set it up: {entry['fix']})")
    for line in _doubts(found["runs"]):
        click.echo(line)
    if "regression" in found:
        print_regression(output, found["regression"])
    if "recorded" in found:
        click.echo(f"recorded: session {found['recorded']}")


def _print_runs(output: Output, runs: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("engine", "load", "round", "done", "out tok/s", "prefill tok/s", "TTFT ms p50/p90/p99",
                    "ITL ms p50/p90/p99", "E2E ms p50/p90/p99", "RSS MB", "SLO"):  # fmt: skip
        table.add_column(heading, justify="left" if heading in ("engine", "load") else "right", no_wrap=True)
    for run in runs:
        slo = run["slo"]
        table.add_row(
            run["engine"],
            load_text(run),
            str(run["round"] + 1),
            f"{run['completed']}/{run['requests']}",
            _number(run["output_tokens_per_s"]),
            _number(run["prefill_tokens_per_s"]),
            *(_three(run[name]) for name in ("ttft_ms", "itl_ms", "e2e_ms")),
            _number(None if run["rss_bytes"] is None else run["rss_bytes"] / 1e6),
            "" if slo is None else f"{slo['verdict']} ({slo['good']}/{run['requests']} good)",
        )
    output.console.print(table)


def _print_ratios(output: Output, ratios: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="Ratios, round by round", title_justify="left")
    for heading in (
        "engine ÷ against",
        "load",
        "metric",
        "better",
        "median",
        "lowest–highest",
        "effect",
        "95 % interval",
    ):
        table.add_column(heading, no_wrap=True)
    for ratio in ratios:
        interval = ratio["interval"]
        table.add_row(
            f"{ratio['engine']} ÷ {ratio['against']}",
            load_text(ratio),
            ratio["metric"],
            ratio["better"],
            f"{ratio['median']:.3f}",
            f"{ratio['low']:.3f}–{ratio['high']:.3f}",
            f"{ratio['effect']:+.1%}",
            "–" if interval is None else f"{interval[0]:+.1%} … {interval[1]:+.1%}",
        )
    output.console.print(table)


def _doubts(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each thing that makes a figure doubtful, once."""
    found: dict[str, None] = {}
    for run in runs:
        for kind, count in run["failures"].items():
            found[f"failed: {run['engine']}, {load_text(run)}: {count} × {kind}: {run['failure_messages'][kind]}"] = (
                None
            )
        for reason in run["generator"]["reasons"]:
            found[f"the load generator was the bottleneck ({run['engine']}, {load_text(run)}): {reason}"] = None
        for note in run["notes"]:
            found[f"note: {run['engine']}: {note}"] = None
        for name in ("ttft_ms", "itl_ms", "e2e_ms"):
            if "reason" in run[name]:
                found[f"not told: {name}: {run[name]['reason']}"] = None
    return list(found)


def _number(value: float | None) -> str:
    return "–" if value is None else json.dumps(round(value, 1 if value < 100 else None))


def _three(spread: Mapping[str, Any]) -> str:
    return " / ".join(_number(spread[name]) for name in ("p50", "p90", "p99"))
