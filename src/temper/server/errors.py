"""Errors as HTTP: OpenAI's envelope, a status, and what the client should do next.

It maps the error tree once, for answers and for streams that break. What is not a `TemperError` is a
fault of ours: the client learns that, and nothing of its insides.
"""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar

from starlette.responses import Response

from temper.errors import (
    DeadlineExceeded,
    Draining,
    EngineDied,
    Invalid,
    NotFound,
    OutOfMemory,
    ProfileError,
    QueueFull,
    Rejected,
    TemperError,
)


class Unauthorized(Invalid):
    """No key, or a wrong one."""

    code: ClassVar[str] = "invalid_api_key"


class Refused(Invalid):
    """The request came under a name or from a page that is not let in."""

    code: ClassVar[str] = "not_allowed"


class BodyTooLarge(Invalid):
    """The body is longer than allowed."""

    code: ClassVar[str] = "request_too_large"


class BodyTooSlow(Invalid):
    """The body did not arrive in time."""

    code: ClassVar[str] = "request_timeout"


class ModelNotFound(NotFound):
    """No model of this name is served."""

    code: ClassVar[str] = "model_not_found"


STATUS: dict[type[TemperError], int] = {
    Unauthorized: 401,
    Refused: 403,
    NotFound: 404,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    Invalid: 400,
    ProfileError: 400,
    QueueFull: 429,
    Draining: 503,
    Rejected: 503,
    EngineDied: 503,
    DeadlineExceeded: 504,
    OutOfMemory: 500,
    TemperError: 500,
}
"""Status by class; a class that is not named has its parent's."""

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def status_of(error: TemperError) -> int:
    """The HTTP status that says what happened."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def envelope(error: TemperError) -> dict[str, Any]:
    """OpenAI's error object."""
    status = status_of(error)
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def error_response(error: TemperError) -> Response:
    """The answer to a request that ended in `error` before its first byte."""
    status = status_of(error)
    # OpenAI's clients obey this header; it spares them repeating what cannot succeed.
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    if error.retry_after_s is not None or isinstance(error, Rejected):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 1.0)))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, BodyTooLarge | BodyTooSlow):
        headers["connection"] = "close"
    return json_response(envelope(error), status, headers)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`content` as compact JSON. Numbers that JSON does not know are a fault of ours and raise."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return Response(body.encode(errors="replace"), status, headers, media_type="application/json")


def internal_error() -> TemperError:
    """What a client learns of a fault of ours."""
    return TemperError("the server failed on this request", hint="its log says why")
