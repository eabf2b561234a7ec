"""The verb that advises on the route to a cheaper model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from temper.api.environment import Place, place
from temper.api.profiles import DEFAULT_PROFILE, profile
from temper.errors import Invalid
from temper.profile import store
from temper.profile.schema import Profile


def advise(
    named: str | Path | Profile = DEFAULT_PROFILE,
    *,
    price_per_hour: float,
    tokens_per_month: float,
    tokens_per_s: float | None = None,
    parameters: float | None = None,
    weight_bytes: float | None = None,
    where: Place | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Quantize now, fine-tune for the long term, or a hybrid: the costs of each, with the arithmetic.

    Parameters and bytes of weights are read from the profile's checkpoint unless given. Without `tokens_per_s` (of the
    whole machine under its load, from `temper bench`) one stream is reckoned with: measured memory bandwidth ÷ bytes of
    weights. `given` holds other fields of `measure.advice.Situation`.

    Raises:
        NotFound, ProfileError, Invalid: a name, a profile or a figure that cannot be.
    """
    from dataclasses import fields

    from temper.measure import advice

    known = {item.name for item in fields(advice.Situation)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise Invalid(f"there is no figure '{unknown[0]}'", param=unknown[0], hint=f"known: {', '.join(sorted(known))}")
    if parameters is None or weight_bytes is None:
        found = _weights(named, where or place())
        parameters, weight_bytes = parameters or found[0], weight_bytes or found[1]
    notes = []
    if tokens_per_s is None:
        tokens_per_s = _bandwidth(weight_bytes) / weight_bytes
        notes.append("tokens/s: one stream at the measured memory bandwidth; give --tokens-per-s from temper bench")
    situation = advice.Situation(
        parameters=parameters, weight_bytes=weight_bytes, tokens_per_s=tokens_per_s, price_per_hour=price_per_hour,
        tokens_per_month=tokens_per_month, **given,
    )  # fmt: skip
    result = advice.advise(situation)
    shown = {item.name: getattr(situation, item.name) for item in fields(situation)}
    return {**result, "assumed": [*notes, *result["assumed"]], "situation": shown}


def _weights(named: str | Path | Profile, here: Place) -> tuple[float, float]:
    """(parameters, bytes) of the profile's checkpoint."""
    from temper.models.checkpoint import open_checkpoint

    checkpoints = store.checkpoints(profile(named, where=here))
    if len(checkpoints) != 1:
        raise Invalid(
            f"advice is about one checkpoint, but the profile names {len(checkpoints)}",
            param="profile",
            hint="give --parameters and --weight-bytes",
        )
    with open_checkpoint(checkpoints[0], here.cache_dir, endpoint=here.hub_endpoint) as checkpoint:
        tensors = checkpoint.tensors.values()
        return float(sum(math.prod(each.shape) for each in tensors)), float(sum(each.num_bytes for each in tensors))


def _bandwidth(working_set_bytes: float) -> float:
    from temper.kernels import _native
    from temper.machine import usable_cores

    return float(_native.read_bandwidth(int(working_set_bytes), max(1, int(usable_cores())), 5))
