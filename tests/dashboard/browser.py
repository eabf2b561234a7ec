"""A real headless Chromium, driven over its DevTools pipe: file descriptors 3 and 4, no package needed.

It knows nothing of the pages. Every request and every console message of a page is kept, so that a test
can insist that nothing left the machine and nothing went wrong unseen.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--mute-audio", "--remote-debugging-pipe"),
)
LAUNCH = """
import fcntl, os, sys
# Out of the way first: either end may itself be descriptor 3 or 4.
commands, answers = (fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
HTMX_FAILURES = ("Response Status Error Code", "htmx:sendError", "htmx:afterRequest")
SHIFT = 8
KEYS = {
    "Enter": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Escape": {"key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27},
    "Tab": {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9},
}


def find_chromium() -> str | None:
    """The path of a Chromium on this machine."""
    return next((found for name in EXECUTABLES if (found := shutil.which(name))), None)


class Browser:
    """One Chromium process with a fresh, empty profile."""

    def __init__(self, executable: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="temper-chromium-", ignore_cleanup_errors=True)
        read_commands, self._write = os.pipe()
        self._read, write_answers = os.pipe()
        ends = (read_commands, write_answers)
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *map(str, ends), executable, *FLAGS, f"--user-data-dir={self._folder.name}"],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._rest = b""
        self._ids = itertools.count(1)
        self._pages: dict[str, Page] = {}

    def new_page(self, *, width: int = 1280, height: int = 800, dark: bool = False, mobile: bool = False) -> Page:
        """An empty tab in a context of its own: its storage is shared with no other."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.resize(width, height, mobile=mobile)
        page.prefer(dark=dark)
        return page

    def call(self, method: str, params: Mapping[str, Any] | None = None, session: str | None = None) -> Any:
        """Send one command and wait for its answer, taking note of the events that come before it."""
        number = next(self._ids)
        command: dict[str, Any] = {"id": number, "method": method, "params": dict(params or {})}
        if session:
            command["sessionId"] = session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            message = self._receive(deadline - time.monotonic())
            if message is None:
                raise TimeoutError(f"Chromium did not answer {method}")
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def pump(self, seconds: float) -> None:
        """Take note of events for `seconds`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._receive(left)

    def close(self) -> None:
        """End the process and remove its profile."""
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, TimeoutError, EOFError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._folder.cleanup()

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        while b"\0" not in self._rest:
            if timeout_s <= 0 or not select.select([self._read], [], [], timeout_s)[0]:
                return None
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise EOFError("Chromium closed its pipe")
            self._rest += chunk
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        page = self._pages.get(message.get("sessionId", ""))
        if page and "method" in message:
            page.note(message["method"], message["params"])
        return message


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        self.requests: list[str] = []
        self.console: list[str] = []
        """Errors and warnings of the page: exceptions, console calls, refused content."""
        self.failed_requests: list[str] = []
        """What the browser (and htmx, on the console) says of answers that were not 2xx."""
        self.may_fail_requests = False
        """Set by tests that provoke errors."""

    # -- looking ---------------------------------------------------------------------------------

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression; promises are awaited."""
        params = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        result = self.call("Runtime.evaluate", params)
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']['exception'].get('description')}")
        return result["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 30) -> Any:
        """Wait until an expression is truthy, and return it."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                body = self.evaluate("document.body.innerText.slice(0, 2000)")
                raise AssertionError(f"not true after {timeout_s} s: {expression}\nconsole: {self.console}\n{body}")
            self._browser.pump(0.05)
        return value

    def text(self, selector: str) -> str:
        """What a person reads in the last element that matches."""
        return str(self.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1).innerText"))

    def screenshot(self, path: Path) -> None:
        """A PNG of what is visible."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", {"format": "png"})["data"]))

    def outside_requests(self) -> list[str]:
        """Requests to anything but this machine."""
        inside = ("127.0.0.1", "localhost", None)
        return [url for url in self.requests if urlsplit(url).hostname not in inside]

    # -- doing -----------------------------------------------------------------------------------

    def goto(self, url: str) -> None:
        """Open an address and wait until it has loaded."""
        self.call("Page.navigate", {"url": url})
        self.wait_for(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})", 20)

    def reload(self) -> None:
        """Load the page again and wait for it."""
        self.evaluate("window.before = true")
        self.call("Page.reload")
        self.wait_for("!window.before && document.readyState === 'complete'", 20)

    def click(self, selector: str) -> None:
        """Press the mouse on the last element that matches, where nothing may cover it."""
        place = self.evaluate(
            f"""(() => {{
              const element = [...document.querySelectorAll({json.dumps(selector)})].at(-1);
              element.scrollIntoView({{ block: "nearest" }});
              const box = element.getBoundingClientRect();
              const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
              const hit = document.elementFromPoint(x, y);
              return {{ x, y, free: element.contains(hit), covered: hit?.outerHTML.slice(0, 120) }};
            }})()"""
        )
        assert place["free"], f"{selector} is covered by {place['covered']}"
        at = {"x": place["x"], "y": place["y"], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", {"type": "mousePressed", **at})
        self.call("Input.dispatchMouseEvent", {"type": "mouseReleased", **at})

    def type(self, text: str) -> None:
        """Insert text where the focus is."""
        self.call("Input.insertText", {"text": text})

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press and release one of `KEYS`."""
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", "modifiers": modifiers, **KEYS[key]})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", "modifiers": modifiers, **KEYS[key]})

    def fill(self, selector: str, value: str) -> None:
        """Set a field as a person would: its value, then the events that follow."""
        self.evaluate(
            f"""(() => {{
              const element = document.querySelector({json.dumps(selector)});
              element.value = {json.dumps(value)};
              element.dispatchEvent(new Event("input", {{ bubbles: true }}));
              element.dispatchEvent(new Event("change", {{ bubbles: true }}));
            }})()"""
        )

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Set the size of the view in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, *, dark: bool) -> None:
        """Set the colour scheme that the person prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def pause(self, seconds: float) -> None:
        """Let the page work."""
        self._browser.pump(seconds)

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", {"targetId": self._target})

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """One DevTools command for this tab."""
        return self._browser.call(method, params, self._session)

    def note(self, method: str, params: Mapping[str, Any]) -> None:
        """Take note of an event."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            text = " ".join(str(a.get("value", a.get("description"))) for a in params["args"])
            (self.failed_requests if text.startswith(HTMX_FAILURES) else self.console).append(text)
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            where = self.failed_requests if entry["source"] == "network" else self.console
            where.append(f"{entry['text']} {entry.get('url', '')}")
