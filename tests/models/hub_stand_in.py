"""A small HTTP server that speaks as much of the Hugging Face hub's API as its client needs for a snapshot."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running stand-in."""

    url: str
    repos: dict[str, Path]
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve_hub(repos: dict[str, Path]) -> Iterator[Hub]:
    """Serve folders as repositories, each at one commit, on a loopback port."""
    hub = Hub("", repos)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def answer(self, body: bool) -> None:
            path = unquote(urlparse(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", path):
                return self.describe(match[1], match[2], match[3] or "main", body)
            if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                file = hub.repos.get(match[1], Path("/nonexistent")) / match[3]
                if file.is_file():
                    raw = file.read_bytes()
                    etag = hashlib.sha256(raw).hexdigest()
                    return self.send(200, raw, body, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})
                return self.send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
            return self.send(404, b"", body, {})

        def describe(self, repo: str, kind: str | None, revision: str, body: bool) -> None:
            if repo not in hub.repos:
                return self.send(404, b'{"error": "Repository not found"}', body, {"X-Error-Code": "RepoNotFound"})
            if revision not in ("main", COMMIT):
                return self.send(404, b'{"error": "Invalid rev"}', body, {"X-Error-Code": "RevisionNotFound"})
            files = sorted(file for file in hub.repos[repo].rglob("*") if file.is_file())
            names = [str(file.relative_to(hub.repos[repo])) for file in files]
            found: object = {
                "id": repo, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0,
                "siblings": [{"rfilename": name} for name in names],
            }  # fmt: skip
            if kind == "tree":
                found = [
                    {
                        "type": "file",
                        "path": name,
                        "size": file.stat().st_size,
                        "oid": hashlib.sha1(name.encode()).hexdigest(),
                    }
                    for name, file in zip(names, files, strict=True)
                ]
            return self.send(200, json.dumps(found).encode(), body, {"Content-Type": "application/json"})

        def send(self, status: int, raw: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(raw)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
