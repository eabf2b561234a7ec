"""Where a chat's answers come from: an engine in this process, or any server that speaks OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from temper.api import Model
from temper.asking import ask
from temper.errors import EngineFailure, Invalid, Rejected, TemperError
from temper.types import Delta, Done, Event, Finished, Message, Usage


class Talk(Protocol):
    """Somebody to talk with."""

    @property
    def name(self) -> str:
        """Who answers."""

    def ask(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Iterator[Event]:
        """The events of the next turn; closing the iterator stops the answer."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]: ...


class LocalTalk:
    """A model loaded here."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.name = model.capabilities.model

    def ask(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Iterator[Event]:
        """The events of the next turn."""
        return self._model.events(ask(messages, **options))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._model.close()
        return False


class RemoteTalk:
    """A model behind a URL. Which one: the first that the server lists."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        import httpx

        self._root = url.rstrip("/").removesuffix("/v1") + "/v1"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(headers=headers, timeout=httpx.Timeout(30.0, read=600.0))
        try:
            answer = self._client.get(f"{self._root}/models")
        except httpx.HTTPError as error:
            raise EngineFailure(f"no server answers at {url}: {error}", hint="is it running? temper serve") from None
        except httpx.InvalidURL as error:
            raise Invalid(f"'{url}' is no URL: {error}", param="--url") from None
        _raise_for(answer.status_code, answer.text)
        self.name = str(answer.json()["data"][0]["id"])

    def ask(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Iterator[Event]:
        """The events of the next turn, read from a stream of server-sent events."""
        import httpx

        body = {
            "model": self.name,
            "messages": [{"role": message.role, "content": message.content or ""} for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
        usage = Usage()
        try:
            with self._client.stream("POST", f"{self._root}/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    _raise_for(answer.status_code, answer.read().decode("utf-8", "replace"))
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        chunk = json.loads(line.removeprefix("data: "))
                        if "error" in chunk:
                            raise EngineFailure(str(chunk["error"].get("message", chunk["error"])))
                        if chunk.get("usage"):
                            usage = Usage(chunk["usage"]["prompt_tokens"], 0, chunk["usage"]["completion_tokens"])
                        yield from _chunk_events(chunk)
        except httpx.HTTPError as error:
            raise EngineFailure(f"the connection to {self._root} broke: {error}") from None
        yield Done(usage)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._client.close()
        return False


def _chunk_events(chunk: Mapping[str, Any]) -> Iterator[Event]:
    """The events that one chunk of a chat stream stands for."""
    for choice in chunk.get("choices", ()):
        delta = choice.get("delta", {})
        if thinking := delta.get("reasoning_content") or delta.get("reasoning"):
            yield Delta(choice["index"], thinking, channel="reasoning")
        if text := delta.get("content"):
            yield Delta(choice["index"], text)
        if choice.get("finish_reason"):
            yield Finished(choice["index"], choice["finish_reason"])


def _raise_for(status: int, text: str) -> None:
    """Turn an HTTP error into ours, with the server's own words where it has some."""
    if status < 400:
        return
    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = text.strip()[:200] or "no reason given"
    kind: type[TemperError] = Rejected if status in (429, 503) else Invalid if status < 500 else EngineFailure
    hint = "set TEMPER_API_KEY" if status == 401 else None
    raise kind(f"the server answered {status}: {message}", hint=hint)
