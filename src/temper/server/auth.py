"""The door: who may come in, under which name, and from which page. A plain ASGI layer around the app.

API keys are compared in constant time and never logged. The `Host` and `Origin` checks keep web pages
that somebody visits from reaching a server on that person's own machine.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from temper.server.errors import Refused, Unauthorized, error_response
from temper.server.settings import ServerSettings

LOAD_ADAPTER_PATH = "/v1/load_lora_adapter"
UNLOAD_ADAPTER_PATH = "/v1/unload_lora_adapter"
ADMIN_PATHS = frozenset({"/admin", LOAD_ADAPTER_PATH, UNLOAD_ADAPTER_PATH})
"""These and everything under `/admin/` open to admin keys alone."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class Door:
    """Checks every request before the app sees it, and marks every answer."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._digests = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]
        self._admin_digests = [hashlib.sha256(key.encode()).digest() for key in settings.admin_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with `scope["temper.tenant"]` set to the caller."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("cache-control", "no-store")
                headers.setdefault("referrer-policy", "no-referrer")
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._check_host(scope, headers)
            self._check_origin(headers)
            self._check_key(scope, headers)
        except (Refused, Unauthorized) as error:
            await error_response(error)(scope, receive, marked)
            return
        await self._app(scope, receive, marked)

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        """A connection over loopback must name a loopback host, or one that was allowed."""
        allowed = self._settings.allowed_hosts
        if "*" in allowed or not _is_loopback((scope.get("server") or ("",))[0]):
            return
        host = _host_name(headers.get("host", ""))
        if host not in LOOPBACK_NAMES and host not in allowed:
            raise Refused(
                f"the host name '{host[:100]}' is not let in", param="Host", hint="add it to the allowed hosts"
            )

    def _check_origin(self, headers: Headers) -> None:
        """Browsers say which page a call comes from; only our own and allowed ones may call."""
        origin, allowed = headers.get("origin"), self._settings.cors_origins
        if origin is None or "*" in allowed or origin in allowed:
            return
        if urlsplit(origin).netloc != headers.get("host"):
            raise Refused(
                f"pages of '{origin[:100]}' may not call this server", param="Origin", hint="allow the origin"
            )

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        digests = self._digests
        if scope["path"] in ADMIN_PATHS or scope["path"].startswith("/admin/"):
            digests = self._admin_digests
            if not digests:
                raise Refused(
                    "no admin key is set, so nobody may change this server", hint="start it with --admin-key-file"
                )
        elif not digests or scope["method"] == "OPTIONS" or self._is_open(scope["path"]):
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            kind = "an admin key" if digests is self._admin_digests else "an API key"
            raise Unauthorized(f"{kind} is needed", hint="send it as 'Authorization: Bearer KEY'")
        digest = hashlib.sha256(key.strip().encode("latin-1")).digest()  # as the bytes came over the wire
        # Every key is looked at, so that time tells nothing about which one came close.
        matches = [hmac.compare_digest(digest, known) for known in digests]
        if True not in matches:
            raise Unauthorized("the key is not known here")
        scope["temper.tenant"] = f"key-{matches.index(True)}"

    def _is_open(self, path: str) -> bool:
        return any(
            path == entry or (entry.endswith("/*") and path.startswith(entry[:-1]))
            for entry in self._settings.open_paths
        )


@lru_cache(maxsize=64)
def _is_loopback(address: Any) -> bool:
    try:
        return ipaddress.ip_address(str(address)).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """`Host` without its port, brackets and letter case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()
