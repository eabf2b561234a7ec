"""`temper chat` on a real (pseudo) terminal: what a person sees, and what Ctrl-C and Ctrl-D do."""

from __future__ import annotations

import codecs
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


class Terminal:
    """A program on a terminal, typed at and read from."""

    def __init__(self, *args: str, home: Path) -> None:
        self.screen, child = pty.openpty()
        # A job in the background ignores Ctrl-C, and so would all that it starts; a terminal's program does not.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "temper.cli", "chat", "--home", str(home), *args],
                stdin=child,
                stdout=child,
                stderr=child,
                start_new_session=True,
                env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
            )
        finally:
            signal.signal(signal.SIGINT, before)
        os.close(child)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.seen = ""

    def wait_for(self, text: str, timeout_s: float = 30.0) -> None:
        """Read until `text` was shown since the last wait."""
        end = time.monotonic() + timeout_s
        while text not in self.seen:
            assert time.monotonic() < end, f"waiting for {text!r}, saw {self.seen!r}"
            if select.select([self.screen], [], [], 0.1)[0]:
                try:
                    self.seen += self.decoder.decode(os.read(self.screen, 65536))
                except OSError:  # the program has gone, and its terminal with it
                    pytest.fail(f"waiting for {text!r}, the program ended; saw {self.seen!r}")
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal delivers it to its foreground group."""
        os.killpg(self.process.pid, 2)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.screen)


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def open_(*args: str) -> Terminal:
        opened.append(Terminal(*args, home=tmp_path))
        return opened[-1]

    yield open_
    for item in opened:
        item.close()


def test_ctrl_c_stops_the_answer_and_ctrl_d_ends_the_program(terminal, tmp_path):
    screen = terminal("--engine", "fake:slow:30")
    screen.wait_for("/help for commands")
    screen.wait_for("› ")
    screen.type("count\n")
    screen.wait_for("1 2 3")
    screen.interrupt()
    screen.wait_for("(stopped)")
    screen.wait_for("› ")
    screen.type("/set max_tokens=2\n")
    screen.wait_for("max_tokens=2\r\n")
    screen.wait_for("› ")  # what is typed before the prompt may meet the terminal in the wrong mode
    screen.type("again\n")
    screen.wait_for("2 tokens")
    screen.wait_for("· length")
    screen.wait_for("› ")
    screen.type("\x04")
    assert screen.process.wait(10) == 0
    history = (tmp_path / "chat_history").read_text()
    assert "again" in history
    assert (tmp_path / "chat_history").stat().st_mode & 0o077 == 0


def test_thinking_is_dim_and_apart(terminal):
    screen = terminal("--engine", "fake:think")
    screen.wait_for("› ")
    screen.type("why\n")
    screen.wait_for("\x1b[2mThe")
    screen.wait_for("\x1b[2m it.")
    screen.wait_for("why")
    screen.wait_for("tokens")
