"""The section of a server of another make, which the engine kind `process` launches and watches.

The command is a list of words, with placeholders for what is decided elsewhere; `command_line` imports one that a
person uses today, and writes it out again. A shell is never involved.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, WrapValidator, model_validator
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

from temper.profile.section import CheckpointName, Section
from temper.profile.servers import FLAGS, Flags, LlamaServerFlags, NoFlags, SglangFlags, VllmFlags


def _of_the_server(value: Any, _: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Flags:
    """Flags by the schema of the section's own `server`; an error names the field as it stands in the file."""
    kind = FLAGS[info.data.get("server", "other")]
    if kind is NoFlags and isinstance(value, dict) and value:
        known = ", ".join(name for name in FLAGS if name != "other")
        raise ValueError(f"flags are known for {known} alone: say which one 'server' is, or write them into 'command'")
    if isinstance(value, Flags) and not isinstance(value, kind):
        value = value.model_dump()
    return kind.model_validate(value)


class ProcessEngine(Section):
    """A server of another make: launched, watched, started again when it dies."""

    kind: Literal["process"] = "process"
    """Which engine this is."""
    server: Literal["vllm", "sglang", "llama-server", "other"] = "other"
    """Whose command it is: decides which flags are known and how the server is spoken to."""
    command: Annotated[tuple[str, ...], Field(min_length=1, max_length=4096, strict=False)]
    """The command's words. `{port}`, `{host}`, `{model}`, `{api_key}` and `{FLAG}` stand for what is filled in;
    `{FLAG:words}` is spelled so while the words mean the flag's value. `temper import-command` writes it for you."""
    flags: Annotated[VllmFlags | SglangFlags | LlamaServerFlags | NoFlags, WrapValidator(_of_the_server)] = Field(
        default_factory=NoFlags, validate_default=True
    )
    """Flags by name; they win over the command, and those that are not in it are added at its end."""
    model: str | None = None
    """What `{model}` stands for: the weights, as the server itself names them."""
    checkpoint: Annotated[str | None, CheckpointName()] = None
    """Weights that Temper fetches first, in place of `model`; `{model}` is then their file or folder."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables that are set for the server."""
    pass_environment: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Further variables handed on from Temper's own environment, such as keys; what programs commonly need (PATH,
    HOME, the language, CUDA_*, HF_HOME, …) is handed on anyway, and nothing else."""
    ready_path: Annotated[str | None, Field(pattern=r"^/[!-~]*$")] = None
    """Path that answers 200 when requests are taken; None: the server's own, `/health`."""
    start_timeout_s: float = Field(900.0, gt=0)
    """Longest time from launch to ready."""
    hang_s: float | None = Field(60.0, gt=0)
    """A server whose `ready_path` has not answered for so long is killed and started again; None: never."""
    silence_s: float = Field(600.0, gt=0)
    """Longest time that a stream may be without a byte."""
    max_restarts: int = Field(5, ge=0)
    """How often in a row it is started again; one that was up for five minutes begins a new row."""
    first_backoff_s: float = Field(0.5, gt=0)
    """Pause before it is started again; each further pause is twice as long, up to a minute."""
    stop_grace_s: float = Field(15.0, ge=0)
    """Between the word to end and the kill."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a table of variables has no hash of its own

    @model_validator(mode="after")
    def _one_model(self) -> ProcessEngine:
        if self.model is not None and self.checkpoint is not None:
            raise ValueError("'model' and 'checkpoint' both say what {model} stands for; give one of them")
        return self
