"""From what a model said to what can be scored: thinking taken off, the final number or the code found."""

from __future__ import annotations

import re
from fractions import Fraction

from temper.asking import Answer, Sample

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_CODE = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?|(?<![\w.])[-−+]?\.\d+")
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_MARKED = re.compile(r"(?:answer|答案|result)\s*(?:is|为|是)?\s*[:：=]?\s*(.+)", re.IGNORECASE)


def final_text(sample: Answer | Sample) -> str:
    """The answer without its thinking, also where the engine does not split it off itself.

    Thinking that was cut off before its end leaves nothing: it is no answer.
    """
    text = sample.text
    if "</think>" in text and "<think>" not in text:
        text = text.rpartition("</think>")[2]  # the template had opened it in the prompt
    return _THINKING.sub("", text).strip()


def final_expression(text: str) -> str:
    """What the text gives as its answer.

    The last `\\boxed{…}`, else what follows the last "answer", else the last line.
    """
    boxed = _BOXED.findall(text)
    if boxed:
        return str(boxed[-1]).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        marked = _MARKED.search(line)
        if marked:
            return marked[1].strip("*`$. 。")
    return lines[-1].strip("*`$. 。") if lines else ""


def final_number(text: str) -> Fraction | None:
    """The number that the text gives as its answer, exactly; None where there is none.

    Looked for in `final_expression`, and failing that in the whole text: the last one counts.
    """
    for place in (final_expression(text), text):
        found = _NUMBER.findall(place)
        if found:
            try:
                return Fraction(re.sub(r"[,\s]", "", found[-1]).replace("−", "-"))
            except ZeroDivisionError:
                return None
    return None


def final_choice(text: str, choices: tuple[str, ...]) -> str | None:
    """The one of `choices` that the text ends on, whole words, whatever their case; None where there is none."""
    pattern = "|".join(rf"(?<!\w){re.escape(choice)}(?!\w)" for choice in sorted(choices, key=len, reverse=True))
    for place in (final_expression(text), text):
        found = re.findall(pattern, place, re.IGNORECASE)
        if found:
            return next(choice for choice in choices if choice.lower() == found[-1].lower())
    return None


def code_block(text: str, language: str = "python") -> str:
    """The code of a text: its first block in `language` or without a name; without any block, the whole text."""
    blocks = [(name.lower(), code) for name, code in _CODE.findall(text)]
    for name, code in blocks:
        if name in (language, language[:2], ""):
            return str(code)
    return str(blocks[0][1]) if blocks else text
