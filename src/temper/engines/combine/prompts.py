"""What can be told of a prompt without its tokenizer: its beginning, its length, what is asked of the answer."""

from __future__ import annotations

from itertools import chain

from temper.types import Request

CHARS_PER_TOKEN = 4.0
"""Where nothing was measured yet."""
USUAL_OUTPUT_TOKENS = 256
"""Expected of a request that names no limit, where nothing was measured yet."""


def opening(request: Request, num_chars: int) -> str:
    """The beginning of the prompt, as text; the same for every later turn of a conversation once it is that long."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return prompt[:num_chars]
    if prompt is not None:
        return ",".join(map(str, prompt[: num_chars // 4]))
    text = ""
    for message in request.messages or ():
        text += f"\0{message.role}\0{(message.content or '')[:num_chars]}"
        if len(text) >= num_chars:
            break
    return text[:num_chars]


def num_chars(request: Request) -> int:
    """Characters of the prompt, tools included; of a prompt of token ids, as many as they usually stand for."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return len(prompt)
    if prompt is not None:
        return int(len(prompt) * CHARS_PER_TOKEN)
    texts = chain.from_iterable((m.content or "", m.reasoning_content or "") for m in request.messages or ())
    return sum(map(len, texts)) + sum(len(str(tool)) for tool in request.tools)


def last_said(request: Request) -> str:
    """The text prompt, or the newest user message."""
    if isinstance(request.prompt, str):
        return request.prompt
    return next((m.content or "" for m in reversed(request.messages or ()) if m.role == "user"), "")
