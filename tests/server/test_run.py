"""Running on a port: binding, warnings, and the drain, seen from another process."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from temper.errors import Invalid
from temper.server import ServerSettings, create_app, serve
from temper.server.run import bind
from tests.server.conftest import fake

PROGRAM = """
import logging, sys
from temper.engines.fake import FakeEngine
from temper.profile import schema
from temper.server import create_app, serve
logging.basicConfig(level="INFO")
engine = FakeEngine(schema.FakeEngine(script="count", itl_ms=20))
serve(create_app(engine), port=0, drain_s=float(sys.argv[1]), on_ready=lambda url: print(url, flush=True))
print("ended well", flush=True)
"""


@contextmanager
def program(drain_s: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(drain_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def stream(url: str, tokens: int) -> Iterator[str]:
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": tokens}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as answer:
        yield from answer.iter_lines()


def test_sigterm_lets_open_streams_end_and_refuses_new_ones():
    with program(drain_s=10) as (process, url):
        lines = stream(url, 200)
        first = next(lines)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.15)
        ready = httpx.get(f"{url}/ready")
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": "x"})
        alive = httpx.get(f"{url}/health")
        rest = list(lines)
        assert first.startswith("data: ")
        assert rest[-2:] == ["data: [DONE]", ""]
        assert any('" 200"' in line for line in rest)
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "unavailable"
        assert alive.status_code == 200
        assert process.wait(10) == 0
        assert "ended well" in process.stdout.read()


def test_a_drain_has_an_end():
    with program(drain_s=0.3) as (process, url):
        lines = stream(url, 5000)
        next(lines)
        process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
        assert '"error"' in rest[-1]
        assert "[DONE]" not in rest[-1]
        assert process.wait(10) == 0


def test_a_second_signal_ends_at_once():
    with program(drain_s=60) as (process, url):
        next(stream(url, 5000))
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.wait(10)


def test_an_idle_server_ends_quickly():
    with program(drain_s=60) as (process, url):
        assert httpx.get(f"{url}/health").status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0  # half of what draining may take


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Invalid, match=f"port {port} on 127.0.0.1 is taken") as caught:
            serve(create_app(fake()), port=port)
    assert caught.value.param == "port"


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("127.0.0.1", 70000), ("192.0.2.1", 0)])
def test_addresses_that_cannot_be(host: str, port: int):
    with pytest.raises(Invalid) as caught:
        bind(host, port)
    assert caught.value.param in ("host", "port")


def test_nobody_waits_on_a_server_that_loads():
    with bind("127.0.0.1", 0) as listener, socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(listener.getsockname())


@pytest.mark.parametrize(
    ("host", "keys", "warns"), [("0.0.0.0", (), True), ("0.0.0.0", ("k",), False), ("127.0.0.1", (), False)]
)
def test_an_open_door_is_warned_of(host: str, keys: tuple[str, ...], warns: bool, caplog: pytest.LogCaptureFixture):
    engine = fake()

    async def fails() -> None:
        raise Invalid("the engine cannot start")

    engine.start = fails
    with caplog.at_level(logging.WARNING), pytest.raises(Invalid, match="cannot start"):
        serve(create_app(engine, settings=ServerSettings(api_keys=keys)), host=host, port=0)
    assert ("WITHOUT AN API KEY" in caplog.text) == warns


HANGUP = """
import sys
from temper import api
api.serve(sys.argv[1], port=0, on_ready=lambda url, models: print(url, flush=True))
"""


def test_sighup_reads_the_profile_again(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[engine]\nkind = "fake"\nscript = "fixed:before"\n')
    process = subprocess.Popen(
        [sys.executable, "-c", HANGUP, str(file)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_DATA_HOME": str(tmp_path)},
    )

    def said() -> str:
        body = {"messages": [{"role": "user", "content": "x"}]}
        text: str = httpx.post(f"{url}/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        return text

    try:
        url = process.stdout.readline().strip()
        assert said() == "before"
        file.write_text('[engine]\nkind = "fake"\nscript = "nothing of the kind"\n')
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert said() == "before"
        file.write_text('[engine]\nkind = "fake"\nscript = "fixed:after"\n')
        process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 5
        while said() != "after":
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
