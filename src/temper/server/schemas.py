"""The bodies of requests, field by field. Strict: no type is bent, no unknown field is ignored.

Fields that OpenAI's clients send and that change no text (`user`, `metadata`, `store`, …) are named
and let pass. Names beyond OpenAI's are vLLM's where it has them. Limits that a place may set are
checked in `translate`, what an engine cannot do is refused by the engine.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from temper.errors import Invalid
from temper.profile.descriptions import description

MAX_INT = 2**31 - 1
MAX_TOKEN_ID = 2**53
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    """Base of every part of a body."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """With the texts under the fields, which are read only when somebody asks for OpenAPI."""
        schema = handler(core)
        for name, field in handler.resolve_ref_schema(schema).get("properties", {}).items():
            if text := description(cls, name):
                field["description"] = text
        return schema


# -- messages --------------------------------------------------------------------------------------


class TextPart(Body):
    """Text inside a message."""

    type: Literal["text"]
    text: str


class ImageUrl(Body):
    """Where an image is."""

    url: str
    detail: str | None = None


class ImagePart(Body):
    """An image inside a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class AudioData(Body):
    """Sound, base64."""

    data: str
    format: Name


class AudioPart(Body):
    """Sound inside a message."""

    type: Literal["input_audio"]
    input_audio: AudioData


ContentPart = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


class CalledFunction(Body):
    """Name and arguments of a call."""

    name: Name
    arguments: str


class CalledTool(Body):
    """One call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Count | None = None


class ChatMessage(Body):
    """One turn. Answers of this server can be sent back as they came."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    """The thinking of an earlier answer, as DeepSeek names it."""
    reasoning: str | None = None
    """The same, as vLLM names it."""
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _says_something(self) -> ChatMessage:
        if self.content is None and not self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of role '{self.role}' needs 'content'")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a message of role 'tool' needs 'tool_call_id'")
        return self


class FunctionShape(Body):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionShape


class NamedFunction(Body):
    """Which function."""

    name: Name


class NamedTool(Body):
    """Which tool must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Body):
    """A schema that the answer must satisfy."""

    name: Name
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Body):
    """What a stream carries besides the text."""

    include_usage: bool = False
    """A last chunk with empty `choices` tells the usage."""
    include_start: bool = False
    """A first chunk with empty `choices` tells the size of the prompt (`temper.started`)."""
    include_obfuscation: bool | None = None
    """Accepted and without effect: streams are not padded."""


class ThinkingOptions(Body):
    """DeepSeek's switch for thinking."""

    type: Literal["enabled", "disabled"]
    budget_tokens: Count | None = None
    """Thinking tokens after which the answer begins."""


class ScheduleOptions(Body):
    """A temperature that changes while generating."""

    kind: Literal["list", "linear", "cosine", "paragraph"]
    values: list[Annotated[float, Field(ge=0, le=5)]] = Field(default_factory=list, max_length=65536)
    """Kind `list`: one temperature per token, the last one for ever after."""
    start: float = Field(1.0, ge=0, le=5)
    end: float = Field(0.4, ge=0, le=5)
    steps: int = Field(64, ge=1, le=MAX_INT)
    """Tokens from `start` to `end`; for `paragraph`, inside each one."""

    @model_validator(mode="after")
    def _list_has_values(self) -> ScheduleOptions:
        if self.kind == "list" and not self.values:
            raise ValueError("a temperature schedule of kind 'list' needs at least one entry in 'values'")
        return self


# -- generation ------------------------------------------------------------------------------------


class Generation(Body):
    """What chat and completions share."""

    model: Name | None = None
    """A served model, one of its adapters, or nothing for the first model."""
    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MAX_INT)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    max_tokens: Count | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    user: str | None = None
    """Accepted and without effect, as are the five below."""
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    top_k: int | None = Field(None, ge=-1, le=MAX_INT)
    """-1 or 0: off."""
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    no_repeat_ngram_size: Count | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[TokenId] | None = Field(None, max_length=1024)
    return_token_ids: bool | None = None
    """Choices carry `token_ids`, and an echoed prompt `prompt_token_ids`, as in vLLM."""
    priority: int | None = Field(None, ge=-(2**31), le=MAX_INT)
    """Lower runs first."""
    num_beams: int | None = Field(None, ge=1, le=64)

    preset: Name | None = None
    """A task preset by name; fields set beside it win."""
    temperature_schedule: ScheduleOptions | None = None
    graceful_end: bool | None = None
    """Near the length limit, stop where a sentence is complete."""
    deadline_s: float | None = Field(None, gt=0, le=86400)
    """Seconds after which nobody waits for the answer any more."""
    extensions: dict[str, Any] | None = None
    """Fields for engines that know more than this server."""

    @model_validator(mode="after")
    def _options_fit_stream(self) -> Generation:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' needs 'stream': true")
        return self


class ChatBody(Generation):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: Count | None = None
    """Limit of new tokens, thinking included; the newer name of `max_tokens`."""
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=1024)
    tools: list[Tool] | None = Field(None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    thinking: ThinkingOptions | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: dict[Literal["enable_thinking", "thinking"], bool] | None = None
    """vLLM's way to switch thinking; other variables of templates are not let in."""

    @model_validator(mode="after")
    def _is_of_one_mind(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' needs 'logprobs': true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("'max_tokens' and 'max_completion_tokens' differ: send one of them")
        if self.parallel_tool_calls is False and self.tools:
            raise ValueError(
                "'parallel_tool_calls': false is not offered: calls of one answer are never limited to one"
            )
        return self


class CompletionBody(Generation):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    """A text or its token ids, or several of either."""
    echo: bool | None = None
    """Begin the answer with the prompt."""
    logprobs: int | None = Field(None, ge=0, le=1024)
    best_of: int | None = Field(None, ge=1, le=MAX_INT)
    suffix: str | None = Field(None, max_length=0)
    """Not offered."""

    @model_validator(mode="after")
    def _best_is_all(self) -> CompletionBody:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("'best_of' other than 'n' is not offered: ask for more samples with 'n' and choose")
        return self


class EmbeddingsBody(Body):
    """`POST /v1/embeddings`."""

    model: Name | None = None
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


class TokenizeBody(Body):
    """`POST /tokenize`: a text, or a conversation under the chat template."""

    model: Name | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeBody:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("exactly one of 'prompt' and 'messages' is needed")
        return self


class DetokenizeBody(Body):
    """`POST /detokenize`."""

    model: Name | None = None
    tokens: list[TokenId]


class LoadAdapterBody(Body):
    """What to load, as vLLM's `/v1/load_lora_adapter` takes it."""

    lora_name: Name
    """The name that requests give as `model` from then on."""
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)]
    """A folder on the server's machine with adapter_config.json and adapter_model.safetensors."""
    load_inplace: bool = False
    """Let a name that is taken go over to this adapter; requests that run end with the old one."""
    model: Name | None = None
    """The served model that it changes; the first one where left out."""


class UnloadAdapterBody(Body):
    """What to unload, as vLLM's `/v1/unload_lora_adapter` takes it."""

    lora_name: Name
    """The name under which it was loaded."""


BODIES: tuple[type[Body], ...] = (
    ChatBody,
    CompletionBody,
    EmbeddingsBody,
    TokenizeBody,
    DetokenizeBody,
    LoadAdapterBody,
    UnloadAdapterBody,
)

AnyBody = TypeVar("AnyBody", bound=Body)


def documented(kind: type[Body]) -> dict[str, Any]:
    """The OpenAPI entry of a body that an endpoint reads itself."""
    reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


# -- checking --------------------------------------------------------------------------------------


def check(kind: type[AnyBody], value: Mapping[str, Any]) -> AnyBody:
    """`value` as a body of this kind.

    Raises:
        Invalid: a field breaks its rule; `param` names the field as a path (`messages.0.content`).
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
        paths = [_path(one, value) for one in found]
        # Of a union every branch complains: the one that got deepest is the one that was meant.
        deepest = max(paths, key=len)
        param = ".".join(deepest)
        mine = [one for one, path in zip(found, paths, strict=True) if path == deepest]
        message = "; or ".join(dict.fromkeys(map(_told, mine)))[:500]
        hint = _nearest(kind, param) if mine[0]["type"] == "extra_forbidden" else None
        raise Invalid(f"'{param}': {message}", param=param, hint=hint) from None


def _path(error: Any, value: Any) -> tuple[str, ...]:
    """Where the error is, without the names pydantic gives to the branches of a union."""
    path: list[str] = []
    steps = [step for step in error["loc"] if step != "[key]"]
    for step in steps:
        in_list = isinstance(step, int) and isinstance(value, list) and step < len(value)
        if in_list or (isinstance(value, dict) and step in value):
            value = value[step]
        elif not (error["type"] == "missing" and step is steps[-1]):
            continue
        path.append(str(step)[:100])
    if not path and error["type"] == "value_error":
        # A rule over several fields: its message begins with the one at fault.
        return (str(error["msg"]).partition("'")[2].partition("'")[0] or "body",)
    return tuple(path) or ("body",)


def _told(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "this field is not known"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = repr(error["input"])
    shown = len(value) <= 60 and error["type"] not in ("missing", "value_error")
    return f"{message} (got {value})" if shown else message


def _nearest(kind: type[Body], param: str) -> str | None:
    near = difflib.get_close_matches(param, kind.model_fields, n=1)
    return f"did you mean '{near[0]}'?" if near else None
