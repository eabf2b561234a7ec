"""What only an operator may do: see the profile that is served, and change it without dropping a request.

Every path is under `/admin/`, which the door opens for admin keys alone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from temper.engines.swap import Swappable
from temper.errors import Invalid, Unsupported
from temper.profile import store
from temper.profile.schema import Profile
from temper.server.errors import json_response
from temper.server.limits import read_json
from temper.server.state import Served, served

router = APIRouter(prefix="/admin", tags=["admin"])


@router.get("/profile")
async def get_profile(request: Request) -> Response:
    """The profile that is served now."""
    return json_response({"profile": _root(served(request)).profile.model_dump(mode="json")})


@router.post("/profile")
async def set_profile(request: Request) -> Response:
    """Serve another profile: `{"profile": {…}}`, `{"toml": "…"}`, or `{}` to read the served one's file again.

    Answers when the change is done. What runs ends as it began.
    """
    state = served(request)
    root = _root(state)
    body = await read_json(request, state.settings)
    changed = await root.change(await _wanted(state, body))
    state.rename()
    changes = [asdict(change) for change in changed.fields]
    return json_response({"changed": changed.how, "fields": changes, "models": list(state.engines)})


@router.post("/trace")
async def set_trace(request: Request) -> Response:
    """Begin (`{"on": true}`) to measure where time goes, or end it (`{"on": false}`) and tell what was found."""
    state = served(request)
    body = await read_json(request, state.settings)
    if set(body) != {"on"} or not isinstance(body["on"], bool):
        raise Invalid('the body must be {"on": true} or {"on": false}', param="on")
    if body["on"]:
        await state.start_trace()
        return json_response({"tracing": True})
    return json_response({"tracing": False, **await state.stop_trace()})


def _root(state: Served) -> Swappable:
    root = state.root
    if root is None:
        raise Unsupported("this server's engines were not made from a profile, so there is none to change")
    return root


async def _wanted(state: Served, body: dict[str, Any]) -> Profile:
    unknown = sorted(set(body) - {"profile", "toml"})
    if unknown or len(body) > 1:
        found = ", ".join(sorted(body))
        raise Invalid(
            f"the body holds 'profile', 'toml' or nothing, but is {{{found}}}", param=(unknown or ["body"])[0]
        )
    if isinstance(body.get("profile"), dict):
        return store.validate(body["profile"], "profile")
    if isinstance(body.get("toml"), str):
        return store.parse(body["toml"], "toml")
    if body:
        name = next(iter(body))
        raise Invalid(f"'{name}' must be {'a table' if name == 'profile' else 'a text'}", param=name)
    if state.reread is None:
        raise Unsupported("this server's profile did not come from a file or a preset: send it", param="profile")
    return state.reread()
