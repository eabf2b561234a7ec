"""Whether a text gives the right answer, for every kind of answer that generators make."""

from __future__ import annotations

import json
import re
from typing import Any

from temper.measure.quality.answers import code_block, final_choice, final_expression, final_number
from temper.measure.quality.generators.question import Expected
from temper.measure.quality.verify import Verifier
from temper.measure.sandbox.run import Sandbox


class Check:
    """Decides `right`. The algebra system and the sandbox are started by the first answer that needs them."""

    def __init__(self, *, allow_weaker_isolation: bool = False) -> None:
        self._allow_weaker = allow_weaker_isolation
        self._verifier: Verifier | None = None
        self._sandbox: Sandbox | None = None

    def right(self, expected: Expected, text: str) -> bool:
        """Whether `text`, an answer without its thinking, gives what is `expected`. May block: it can run a program.

        Raises:
            MissingExtra: an expression is to be checked, and sympy is not installed.
            Unsupported: code is to be checked, and the sandbox cannot hold it here.
        """
        match expected.kind:
            case "number":
                return final_number(text) == final_number(expected.answer)
            case "choice":
                return final_choice(text, expected.choices) == expected.answer
            case "expression":
                self._verifier = self._verifier or Verifier()
                return self._verifier.equal(final_expression(text), expected.answer)
            case "text":
                return _plain(final_expression(text)) == _plain(expected.answer)
            case "json":
                return same_json(text, expected.answer)
            case "code":
                self._sandbox = self._sandbox or Sandbox(allow_weaker=self._allow_weaker)
                return self._sandbox.run(f"{code_block(text)}\n\n{expected.tests}\n").passed


def same_json(text: str, wanted: str) -> bool:
    """Whether the last JSON object of a text is the one wanted, whatever the order of its keys."""
    found: Any = None
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found, length = decoder.raw_decode(text[at:])
            at = text.find("{", at + length)
        except (ValueError, RecursionError):
            at = text.find("{", at + 1)
    return found is not None and found == json.loads(wanted)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip().strip("'\"`")).casefold()
