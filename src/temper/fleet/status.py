"""A rollout as plain data: for `--json`, for the page, for the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temper.fleet.rollouts import Rollout, plain

if TYPE_CHECKING:
    from temper.fleet.store import Store


def document(store: Store, rollout: Rollout) -> dict[str, Any]:
    """What `temper rollout status --json` says of a rollout."""
    verdict = plain(rollout.verdict())
    candidate = store.versions.find(rollout.candidate)
    return {
        "rollout": rollout.id,
        "deployment": rollout.deployment,
        "version": rollout.candidate,
        "control": rollout.control,
        "stage": candidate.stage,
        "state": rollout.state,
        "paused": rollout.paused,
        "step": rollout.step,
        "share": rollout.share,
        "reason": rollout.reason,
        **{
            name: verdict[name] for name in ("verdict", "metric", "effect", "interval", "better", "confidence", "claim")
        },
        "guardrails": verdict["guardrails"],
        "requests": {"judged": rollout.judged.get("num_units", 0), **store.requests.counts(rollout.id)},
        "created_at": rollout.created_at,
        "ended_at": rollout.ended_at,
        "plan": rollout.plan.model_dump(mode="json"),
        "servers": [
            {
                "url": server.url,
                "serving": server.serving,
                "rollout": server.rollout,
                "share": server.share,
                "error": server.error,
            }
            for server in store.deployments.servers(rollout.deployment)
            if server.alive
        ],
    }
