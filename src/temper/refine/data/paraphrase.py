"""The same question in a model's own words: any engine's, kept only when nothing that decides the answer is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from temper.engines.base import Engine
from temper.measure.quality.answers import final_text
from temper.measure.quality.generated import FORM, FORM_ZH
from temper.refine.data.patience import answered
from temper.refine.data.wording import numbers_of

ASKED: Final = (
    "Say the following in other words, in the same language. Keep every number, every name, every quotation and all "
    "code exactly as they are, and ask for the same thing. Answer with the new text alone.\n\n{text}"
)
ASKED_ZH: Final = "请用别的话改写下面的内容,意思不变。数字、名字、引文和代码都要原样保留。只写改写后的内容。\n\n{text}"
_CODE: Final = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_CHINESE: Final = re.compile(r"[\u3400-\u9fff]")
SHORTEST, LONGEST = 0.4, 2.5
"""Lengths, as multiples of the original's."""


async def paraphrase(
    engine: Engine, text: str, *, id: str, seed: int, max_tokens: int, temperature: float | None, kept: Sequence[str]
) -> tuple[str, str]:
    """(new text, why it is not kept): one of the two is empty.

    How the answer is to be given (the form that `temper eval` asks for) is taken off before and put back after.

    Raises:
        TemperError: the engine refuses the request, or broke.
    """
    form = next((form for form in (FORM, FORM_ZH) if text.endswith(form)), "")
    body = text.removesuffix(form)
    prompt = (ASKED_ZH if _is_chinese(body) else ASKED).format(text=body)
    options = {} if temperature is None else {"temperature": temperature}
    answer = await answered(engine, prompt, id=id, seed=seed, max_tokens=max_tokens, **options)
    said = final_text(answer)
    reason = "cut off by the token limit" if answer.finish_reason == "length" else changed_too_much(body, said, kept)
    return ("", reason) if reason else (said + form, "")


def changed_too_much(body: str, said: str, kept: Sequence[str]) -> str:
    """Why `said` does not stand for `body`; empty where nothing speaks against it."""
    if not said:
        return "nothing was said"
    if " ".join(said.split()).casefold() == " ".join(body.split()).casefold():
        return "nothing was changed"
    if numbers_of(said) != numbers_of(body):
        return "other numbers"
    asked, given = body.casefold(), said.casefold()
    if any(name.casefold() in asked and name.casefold() not in given for name in kept):
        return "a choice is lost"
    if any(code not in said for code in _CODE.findall(body)):
        return "code is lost"
    if _is_chinese(said) != _is_chinese(body):
        return "another language"
    if not SHORTEST <= len(said) / len(body) <= LONGEST:
        return "much shorter or longer"
    return ""


def _is_chinese(text: str) -> bool:
    return len(_CHINESE.findall(text)) > len(text) / 5
