"""Task presets carry the numbers of spec D2."""

from __future__ import annotations

import pytest

from temper.errors import NotFound
from temper.profile.presets import task_preset, task_presets


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("legal", {"top_p": 0.88, "top_k": 30}),
        ("dialogue", {"top_p": 0.95, "top_k": 50}),
        ("translation", {"top_p": 0.90, "top_k": 40}),
        ("news-summary", {"top_p": 0.92, "top_k": 40}),
        ("anti-repetition", {"temperature": 0.9, "top_k": 50, "top_p": 0.92, "repetition_penalty": 1.2}),
    ],
)
def test_the_guides_numbers(name, expected):
    assert task_preset(name).sampling.model_dump(exclude_none=True) == expected


def test_bounds_that_the_guides_set():
    assert task_preset("anti-repetition").max_tokens == 256
    code, creative = task_preset("code").sampling.temperature, task_preset("creative").sampling.temperature
    assert code is not None
    assert code <= 0.5
    assert creative is not None
    assert creative >= 0.9


@pytest.mark.parametrize("name", task_presets())
def test_each_preset_says_what_it_is_for(name):
    assert task_preset(name).description.endswith(".")


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(NotFound, match="did you mean 'dialogue'"):
        task_preset("dialog")
