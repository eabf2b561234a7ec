"""Which language a text is in, by a model that comes inside a package: nothing is fetched."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from temper.errors import Invalid, MissingExtra

UNKNOWN: Final = "und"
"""ISO 639's word for undetermined."""
MAX_CHARS: Final = 8000
"""Enough to tell a language by; what follows is not looked at."""

Identify = Callable[[str], tuple[str, float]]
"""A text's language (ISO 639-1) and how sure that is, 0 to 1."""


def identifier(wanted: Sequence[str] = ()) -> Identify:
    """What tells languages apart.

    Raises:
        MissingExtra: py3langid is not installed.
        Invalid: a wanted language is none that the model knows.
    """
    try:
        import py3langid.langid  # noqa: F401 (named here so that a missing package is an error of ours)
    except ImportError as error:
        raise MissingExtra(
            f"telling languages apart needs the package {error.name}", hint="pip install 'temper-llm[data]'"
        ) from error
    model = _model()
    known = set(map(str, model.labels))
    for language in wanted:
        if language not in known:
            close = difflib.get_close_matches(language, known, n=1)
            raise Invalid(
                f"a language is an ISO 639-1 code that the model knows, but is '{language}'",
                param="languages",
                hint=f"did you mean '{close[0]}'?" if close else "such as en, zh, de",
            )

    def identify(text: str) -> tuple[str, float]:
        if not any(char.isalpha() for char in text[:MAX_CHARS]):
            return UNKNOWN, 0.0
        found, confidence = model.classify(text[:MAX_CHARS])
        return str(found), float(confidence)

    return identify


@cache
def _model() -> Any:
    """Read once a process: it is unpacked from a compressed file."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
