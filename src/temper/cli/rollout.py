"""`temper rollout`: traffic moved to a version, step by step, and back when it is worse."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from temper import api
from temper.cli.command import command
from temper.cli.output import Output
from temper.errors import Invalid, NotFound

if TYPE_CHECKING:
    from temper.fleet.rollouts import Rollout
    from temper.fleet.store import Store

WATCH_S = 10.0
"""Between two lines of `watch` when nothing moves."""
EXITS = {"promoted": 0, "running": 0, "rolled_back": 1, "aborted": 1, "inconclusive": 3}


@click.group()
def rollout() -> None:
    """Move traffic to a version, and back when it is worse."""


@command(rollout)
@click.argument("version")
@click.option("--steps", default="5,25,50,100", show_default=True, help="Shares of the traffic, in percent.")
@click.option("--deployment", help="Whose traffic.  [default: the one whose servers are running]")
@click.option("--target", help="What must get better: e2e, ttft, p99, output, errors or wrong.  [default: nothing]")
@click.option("--alpha", type=float, help="Chance that any verdict is wrong.  [default: 0.05]")
@click.option("--min-requests", type=int, help="Fewest judged at each step.  [default: 100]")
@click.option("--max-requests", type=int, help="Then it ends, whatever is known.  [default: no limit]")
@click.option("--min-seconds", "min_s", type=float, help="Shortest time at each step.  [default: 10]")
@click.option("--max-hours", type=float, help="Then it ends, whatever is known.  [default: 24]")
@click.option("--tolerate", multiple=True, metavar="METRIC=HARM", help="Harm that is accepted, such as e2e=0.1.")
@click.option("--sticky", help="request, tenant or extension:NAME.  [default: extension:user]")
@click.option("--quality", help="off, sane or agreement, and the share judged: agreement:0.2.  [default: sane]")
@click.option("--watch", is_flag=True, help="Show it until it ends; the exit code is its verdict.")
def start(output: Output, version: str, steps: str, deployment: str | None, watch: bool, **arguments: Any) -> int:
    """Begin a rollout on running servers. VERSION is an id, or any profile, which is kept first.

    A controller moves it on: `temper loop run`, or `temper serve --loop`.
    """
    begun = api.rollout(version, deployment=deployment, plan=_plan(steps, arguments), where=output.place())
    with api.open_store(output.place()) as store:
        if store.lease_holder("controller") is None:
            output.note("no controller is running: start one with `temper loop run`, or nothing will move")
        if watch:
            return _watch(output, store, begun.id)
        return _show(output, store, begun.id)


def _plan(steps: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from temper.fleet.plan import GUARDRAILS, WRONG, parse_steps

    plan: dict[str, Any] = {"steps": parse_steps(steps)}
    for name in ("target", "alpha", "min_requests", "max_requests", "min_s", "sticky"):
        if arguments[name] is not None:
            plan[name] = arguments[name]
    if arguments["max_hours"] is not None:
        plan["max_s"] = 3600 * arguments["max_hours"]
    if arguments["quality"]:
        kind, colon, share = arguments["quality"].partition(":")
        plan["quality"] = kind
        if colon:
            plan["quality_share"] = _number(share, "quality")
    guardrails = {guardrail.metric: guardrail for guardrail in (*GUARDRAILS, WRONG)}
    for text in arguments["tolerate"]:
        metric, _, harm = text.partition("=")
        if metric not in guardrails:
            raise Invalid(f"no guardrail is called '{metric}'; there are {', '.join(guardrails)}", param="tolerate")
        guardrails[metric] = guardrails[metric].model_copy(update={"tolerance": _number(harm, "tolerate")})
    if plan.get("quality") == "off":
        del guardrails["wrong"]
    plan["guardrails"] = tuple(guardrails.values())
    return plan


def _number(text: str, option: str) -> float:
    """A share above 0, as it is written on the command line."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise Invalid(f"--{option} takes a number above 0, such as 0.1, not '{text}'", param=option)
    return value


@command(rollout)
@click.argument("rollout_id", required=False)
@click.option("--deployment", help="Whose.  [default: of all]")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write it with its charts into one file.")
def status(output: Output, rollout_id: str | None, deployment: str | None, html: Path | None) -> int:
    """Show the rollout that is under way, or the last one. Exits with 1 when it was rolled back, 3 inconclusive."""
    with api.open_store(output.place()) as store:
        id = _named(store, rollout_id, deployment).id
        if html is not None:
            html.write_text(api.rollout_page(id, output.place()), "utf-8")
            output.note(f"charts: {html}")
        return _show(output, store, id)


@command(rollout)
@click.argument("rollout_id", required=False)
@click.option("--deployment", help="Whose.  [default: of all]")
def watch(output: Output, rollout_id: str | None, deployment: str | None) -> int:
    """Show a rollout until it ends; the exit code is its verdict."""
    with api.open_store(output.place()) as store:
        return _watch(output, store, _named(store, rollout_id, deployment).id)


@command(rollout)
@click.argument("rollout_id", required=False)
@click.option("--deployment", help="Whose.  [default: of all]")
def pause(output: Output, rollout_id: str | None, deployment: str | None) -> int:
    """Hold the share where it is. Harm still rolls back."""
    with api.open_store(output.place()) as store:
        return _show(output, store, store.rollouts.pause(_named(store, rollout_id, deployment).id).id)


@command(rollout)
@click.argument("rollout_id", required=False)
@click.option("--deployment", help="Whose.  [default: of all]")
def resume(output: Output, rollout_id: str | None, deployment: str | None) -> int:
    """Go on after a pause."""
    with api.open_store(output.place()) as store:
        return _show(output, store, store.rollouts.pause(_named(store, rollout_id, deployment).id, paused=False).id)


@command(rollout)
@click.argument("rollout_id", required=False)
@click.option("--deployment", help="Whose.  [default: of all]")
def abort(output: Output, rollout_id: str | None, deployment: str | None) -> None:
    """End a rollout: all traffic goes back."""
    with api.open_store(output.place()) as store:
        _show(output, store, store.rollouts.abort(_named(store, rollout_id, deployment).id).id)


def _named(store: Store, id: str | None, deployment: str | None) -> Rollout:
    if id is not None:
        return store.rollouts.find(id)
    found = store.rollouts.all(deployment, most=1)
    if not found:
        raise NotFound("there is no rollout yet", param="rollout", hint="temper rollout start VERSION")
    return found[0]


def _show(output: Output, store: Store, id: str) -> int:
    from temper.fleet.status import document

    found = document(store, store.rollouts.find(id))
    if output.json:
        output.document(**found)
        return EXITS[found["state"]]
    requests = found["requests"]
    click.echo(
        f"rollout {found['rollout']} of '{found['deployment']}': {found['version'][:12]} is {found['stage']}, "
        f"{found['state']}{' (paused)' if found['paused'] else ''} at {found['share']:.0%}"
    )
    click.echo(f"  {found['reason']}")
    click.echo(
        f"  {requests['judged']} units judged; sent: {sum(requests['control'].values())} to the control, "
        f"{sum(requests['candidate'].values())} to the candidate"
    )
    for guardrail in found["guardrails"]:
        interval = guardrail["interval"] or [None, None]
        ends = " … ".join("?" if end is None else f"{end:+.1%}" for end in interval)
        effect = "?" if guardrail["effect"] is None else f"{guardrail['effect']:+.1%}"
        click.echo(f"  {guardrail['metric']:7} {guardrail['verdict']:12} {effect:>8}  [{ends}]")
    return EXITS[found["state"]]


def _watch(output: Output, store: Store, id: str) -> int:
    last, said_at = -1.0, 0.0
    while True:
        rollout = store.rollouts.find(id)
        if rollout.share != last or time.monotonic() - said_at > WATCH_S:
            output.note(f"{rollout.share:.0%}: {rollout.reason}")
            last, said_at = rollout.share, time.monotonic()
        if rollout.state != "running":
            return _show(output, store, id)
        time.sleep(1.0)
