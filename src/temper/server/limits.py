"""Reading a body with every size bounded before anything is made of it."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from temper.errors import Invalid
from temper.server.errors import BodyTooLarge, BodyTooSlow
from temper.server.settings import ServerSettings

LINGER_S = 1.0
"""For the rest of a body that is too long: a client that still writes would not read our answer."""
MAX_NESTING = 64
"""Depth of arrays and objects inside one another. A JSON schema among the tools needs some."""


async def read_json(request: Request, settings: ServerSettings) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        BodyTooLarge: more than `max_body_bytes`, announced or as it arrives in chunks.
        BodyTooSlow: not complete within `body_timeout_s`.
        Invalid: not UTF-8, not JSON, not an object, nested too deep, or with NaN or Infinity in it.
    """
    body = await _read(request, settings)
    try:
        # This parser refuses NaN, lone surrogates and bad UTF-8, and stops at 200 levels by itself.
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Invalid(f"the body is not valid JSON: {error}", param="body") from None
    if not isinstance(value, dict):
        raise Invalid(f"the body must be a JSON object, not {_kind(value)}", param="body")
    for name, field in value.items():
        if depth_of(field, MAX_NESTING) > MAX_NESTING:
            raise Invalid(f"'{name}' is nested deeper than {MAX_NESTING} levels", param=name)
    return value


async def _read(request: Request, settings: ServerSettings) -> bytes:
    most, loop = settings.max_body_bytes, asyncio.get_running_loop()
    too_large = BodyTooLarge(f"the body is longer than the limit of {most} bytes", param="body")
    announced = request.headers.get("content-length", "")
    is_too_large = announced.isdigit() and int(announced) > most
    if is_too_large and "expect" in request.headers:
        raise too_large  # the client waits for leave to send
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(LINGER_S if is_too_large else settings.body_timeout_s) as patience:
            async for chunk in request.stream():
                size += len(chunk)
                if is_too_large:
                    continue
                chunks.append(chunk)
                if size > most:
                    is_too_large = True
                    chunks.clear()
                    patience.reschedule(loop.time() + LINGER_S)
    except TimeoutError:
        if not is_too_large:
            limit = settings.body_timeout_s
            raise BodyTooSlow(f"the body was not complete within {limit:g} s", param="body") from None
    except ClientDisconnect:
        raise Invalid("the client left before its body was complete", param="body") from None
    if is_too_large:
        raise too_large
    return b"".join(chunks)


def depth_of(value: Any, most: int) -> int:
    """Levels of arrays and objects in `value`; stops counting just above `most`."""
    depth, level = 0, [value]
    while depth <= most:
        level = (
            [
                inner
                for outer in level
                if isinstance(outer, dict | list)
                for inner in (outer.values() if isinstance(outer, dict) else outer)
                if isinstance(inner, dict | list)
            ]
            if depth
            else ([value] if isinstance(value, dict | list) else [])
        )
        if not level:
            return depth
        depth += 1
    return depth


def _kind(value: Any) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
