"""From an engine's trace to stages that have names: how long each took, what it moved and computed.

Every second of work is in exactly one stage. Work of several threads and processes goes on at once, so the stages add
up to more than the clock on the wall did. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PHASES: Final = ("prefill", "decode", "mixed")

ATTENTION_PREFILL = "attention, prefill"
ATTENTION_DECODE = "attention, decode"
PROJECTIONS = "linear: attention projections"
MLP = "linear: MLP"
HEAD = "linear: head"
OTHER_LINEAR = "linear: others"
OTHER_OPS = "norm, rope, cache writes"
CALLING = "calling the executor"
TOKENIZING, DETOKENIZING = "tokenizer", "detokenizer"
SCHEDULING, BUILDING, SAMPLING = "scheduling", "building batches", "sampling"
PUBLISHING, HANDING_OVER = "publishing", "handing over"
HTTP, WIRE = "HTTP", "wire to the worker"

ORDER: Final = (
    HTTP, WIRE, TOKENIZING, SCHEDULING, BUILDING, PROJECTIONS, ATTENTION_PREFILL, ATTENTION_DECODE, MLP, HEAD,
    OTHER_LINEAR, OTHER_OPS, CALLING, SAMPLING, DETOKENIZING, PUBLISHING, HANDING_OVER,
)  # fmt: skip
"""Roughly the order in which a request meets them."""

DEFINITIONS: Final[dict[str, str]] = {
    HTTP: "CPU time of the API process: reading and checking requests, JSON, event streams, and its end of the wire.",
    WIRE: "CPU time of the worker's event loop: requests in, events out.",
    TOKENIZING: "Checks, chat template and tokenizer, in threads of their own.",
    SCHEDULING: "Deadlines, and the choice of the step's sequences and their cache pages.",
    BUILDING: "Laying the step out in arrays.",
    PROJECTIONS: "Queries, keys, values and the output of attention, with the norm or residual fused into them.",
    ATTENTION_PREFILL: "Scores and weighted values of prompts; in mixed steps its share by the time of the tiles.",
    ATTENTION_DECODE: "The same of sequences that bring one token to the step.",
    MLP: "Gate, up and down, with the activation, norm or residual fused into them.",
    HEAD: "From the last hidden state to the logits of the vocabulary.",
    OTHER_LINEAR: "Matrices that no name is known for.",
    OTHER_OPS: "Ops that were not fused into a matrix product.",
    CALLING: "Time in `forward` that belongs to no op: checks, positions, the way between Python and C++.",
    SAMPLING: "Penalties, filters and the choice of tokens, log-probabilities where asked for.",
    DETOKENIZING: "Tokens to text.",
    PUBLISHING: "Stops, thinking, limits, events; the detokenizer left out.",
    HANDING_OVER: "Giving the step's events to the event loop.",
}

_PROJECTION_NAMES: Final = frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj"})
_MLP_NAMES: Final = frozenset({"gate_proj", "up_proj", "gate_up_proj", "down_proj"})
_HEAD_NAMES: Final = frozenset({"lm_head", "embed_tokens"})
_PARTS: Final = {
    "tokenize": TOKENIZING, "schedule": SCHEDULING, "build": BUILDING, "sample": SAMPLING,
    "detokenize": DETOKENIZING, "hand_over": HANDING_OVER,
}  # fmt: skip


@dataclass(slots=True)
class Stage:
    """One kind of work, or all ops of one phase."""

    name: str
    seconds: float = 0.0
    bytes: int = 0
    int8_operations: int = 0
    bf16_operations: int = 0
    f32_operations: int = 0
    phase_seconds: dict[str, float] = field(default_factory=dict)
    """For ops: the seconds by the phase of their steps."""

    def add(self, op: Mapping[str, Any]) -> None:
        """Count an `OpTime`."""
        seconds = op["ns"] / 1e9
        self.seconds += seconds
        self.bytes += op["bytes"]
        if op["arithmetic"] == "int8":
            self.int8_operations += op["operations"]
        elif op["arithmetic"] == "bf16":
            self.bf16_operations += op["operations"]
        else:
            self.f32_operations += op["operations"]
        self.phase_seconds[op["phase"]] = self.phase_seconds.get(op["phase"], 0.0) + seconds


def stages(trace: Mapping[str, Any] | None, http_cpu_s: float | None, loop_cpu_s: float | None) -> list[Stage]:
    """Every stage that can be told, in the order of `ORDER`.

    `trace` is an `EngineTrace` as plain data, None where the engine tells nothing; `http_cpu_s` is the API process's
    CPU time, `loop_cpu_s` that of a worker's event loop, None where there is no such thing.
    """
    found: dict[str, Stage] = {}

    def stage(name: str) -> Stage:
        return found.setdefault(name, Stage(name))

    if http_cpu_s is not None:
        stage(HTTP).seconds = http_cpu_s
    if loop_cpu_s is not None:
        stage(WIRE).seconds = loop_cpu_s
    if trace is not None:
        parts = {name: seconds for name, (_, seconds) in trace["parts"].items()}
        for part, name in _PARTS.items():
            if part in parts:
                stage(name).seconds = parts[part]
        if "publish" in parts:
            stage(PUBLISHING).seconds = max(0.0, parts["publish"] - parts.get("detokenize", 0.0))
        ops = trace["ops"] or ()
        for op in ops:
            stage(stage_of(op["label"], op["phase"])).add(op)
        if "forward" in parts:
            stage(CALLING).seconds = max(0.0, parts["forward"] - sum(op["ns"] for op in ops) / 1e9)
    return [found[name] for name in ORDER if name in found]


def stage_of(label: str, phase: str) -> str:
    """The stage of an op, by its label (`kernels.native` makes them) and the phase of its steps."""
    kind, _, rest = label.partition(" ")
    if kind == "attention":
        return ATTENTION_DECODE if phase == "decode" else ATTENTION_PREFILL
    if not kind.endswith("linear"):
        return OTHER_OPS
    names = set(rest.rpartition(" ")[2].split("+"))
    for known, stage in ((_PROJECTION_NAMES, PROJECTIONS), (_MLP_NAMES, MLP), (_HEAD_NAMES, HEAD)):
        if names <= known:
            return stage
    return OTHER_LINEAR


def phases(ops: Iterable[Mapping[str, Any]]) -> list[Stage]:
    """The sums of all ops by the phase of their steps, for the phases that occurred."""
    sums = {name: Stage(name) for name in PHASES}
    for op in ops:
        sums[op["phase"]].add(op)
    return [one for one in sums.values() if one.seconds > 0]
