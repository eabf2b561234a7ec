"""A checkpoint put in place of another under traffic: a server, a controller, callers, and a rollout between them.

Everything runs on this machine and ends with the call. What traffic gets is judged by the rollout alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from temper.api.environment import Place
from temper.api.fleet import rollout
from temper.api.profiles import profile
from temper.api.store import open_store
from temper.errors import EngineFailure
from temper.profile import store as profiles

if TYPE_CHECKING:
    from temper.refine.course import Canary
    from temper.refine.telling import Tell

START_S: Final = 180.0
"""Most that a server may take to be ready on a busy machine."""
ANSWER_S: Final = 120.0
POLL_S: Final = 0.5
QUESTIONS: Final = 512
"""Different ones that callers ask."""


def canary(
    control: Path, candidate: Path, config: Canary, folder: Path, *, suite: str, seed: int, max_tokens: int, tell: Tell,
    where: Place,
) -> dict[str, Any]:  # fmt: skip
    """Serve `control` over HTTP, let callers ask the questions of `suite`, and roll `candidate` out to them.

    Returns the rollout's state, verdict and reason, what callers saw, and one answer with its thinking split off.

    Raises:
        EngineFailure: the server does not get ready.
    """
    from temper.engines.process.launch import free_port
    from temper.fleet.plan import plan_of

    home, port = folder / "home", free_port()
    home.mkdir(exist_ok=True)
    here = replace(where, home=home, store_url=None)
    for name, checkpoint in (("control", control), ("candidate", candidate)):
        profiles.save(profile(str(checkpoint.resolve())), folder / f"{name}.toml")
    plan = plan_of({
        "steps": config.steps, "min_requests": config.min_requests, "min_s": 2.0, "max_s": 60 * config.max_minutes,
        "sticky": "request", "quality": "off",
        "guardrails": [
            {"metric": "errors", "tolerance": config.errors, "proven": True, "weight": 2.0},
            {"metric": "e2e", "tolerance": config.slower, "proven": True, "weight": 2.0},
        ],
    })  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        log = stack.enter_context((folder / "servers.log").open("ab"))
        server = stack.enter_context(_running(["serve", str(folder / "control.toml"), "--port", str(port),
                                               "--home", str(home)], log))  # fmt: skip
        _wait_ready(url, server)
        asked = questions_of(suite, seed, QUESTIONS)
        callers = stack.enter_context(_Callers(url, asked, config.callers, max_tokens))
        _wait(lambda: callers.counts["ok"] > 0, server)
        stack.enter_context(_running(["loop", "run", "--home", str(home)], log))
        with open_store(here) as store:
            _wait(lambda: any(one.alive for one in store.deployments.servers()), server)
        begun = rollout(folder / "candidate.toml", plan=plan, where=here)
        began = time.monotonic()
        with open_store(here) as store:
            found = store.rollouts.find(begun.id)
            while found.state == "running" and time.monotonic() - began < 60 * config.max_minutes + ANSWER_S:
                tell(f"rollout at {found.share:.0%}", int(found.judged.get("num_units", 0)), 0)
                time.sleep(POLL_S)
                found = store.rollouts.find(begun.id)
            seconds = time.monotonic() - began
            verdict = found.verdict()
        shown = callers.shown
    return {
        "state": found.state, "verdict": verdict.verdict, "reason": found.reason, "seconds": round(seconds, 1),
        "requests_judged": found.judged.get("num_units", 0), "callers": dict(callers.counts),
        "with_thinking": callers.num_thinking, "shown": shown,
    }  # fmt: skip


def questions_of(suite: str, seed: int, count: int) -> list[str]:
    """What a suite asks, in words.

    Raises:
        NotFound: there is no such suite.
    """
    from temper.measure.quality import kinds

    return [str((item.request.messages or ())[-1].content) for item in kinds.find(suite).items(seed, count)]


@contextmanager
def _running(arguments: list[str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A command of ours as a process of its own while this lasts."""
    process = subprocess.Popen([sys.executable, "-m", "temper.cli", *arguments], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    _wait(ready, server)


def _wait(condition: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    while not condition():
        if server.poll() is not None or time.monotonic() - began > START_S:
            raise EngineFailure(
                "the server of the canary does not get ready", hint="servers.log in its folder says why"
            )
        time.sleep(POLL_S)


class _Callers:
    """Ask one question after another until they are told to stop."""

    def __init__(self, url: str, questions: list[str], num: int, max_tokens: int) -> None:
        self.counts: Counter[str] = Counter()
        self.num_thinking = 0
        """Answers whose thinking came apart from what was said."""
        self.shown: Mapping[str, Any] | None = None
        """One of those."""
        self._url, self._questions, self._max_tokens = url, questions, max_tokens
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number, num), daemon=True) for number in range(num)]

    def __enter__(self) -> _Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(ANSWER_S)

    def _ask(self, number: int, step: int) -> None:
        at = number
        while not self._ended.is_set():
            asked = self._questions[at % len(self._questions)]
            body = {
                "messages": [{"role": "user", "content": asked}],
                "temperature": 0, "max_tokens": self._max_tokens,
            }  # fmt: skip
            at += step
            request = urllib.request.Request(f"{self._url}/v1/chat/completions", json.dumps(body).encode(),
                                             {"content-type": "application/json"})  # fmt: skip
            try:
                with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                    said = json.loads(answer.read())["choices"][0]["message"]
            except urllib.error.HTTPError as error:
                self.counts[str(error.code)] += 1
            except (OSError, ValueError, LookupError) as error:
                self.counts[type(error).__name__] += 1
                self._ended.wait(POLL_S)
            else:
                self.counts["ok"] += 1
                if said.get("reasoning_content"):
                    self.num_thinking += 1
                    self.shown = {"question": asked, **{k: said[k] for k in ("reasoning_content", "content")}}
