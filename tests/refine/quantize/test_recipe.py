"""Settings: what is left out is filled in, and what does not go together is refused with the fix."""

from __future__ import annotations

import pytest

from temper.errors import Invalid
from temper.refine.quantize.recipe import QuantizeRecipe


def test_what_is_left_out_is_filled_in():
    assert (QuantizeRecipe().bits, QuantizeRecipe().group) == (4, 32)
    assert (QuantizeRecipe("nf4").bits, QuantizeRecipe("nf4").group) == (4, 64)
    whole = QuantizeRecipe("rtn", activation_bits=8)
    assert (whole.bits, whole.group) == (8, 0)
    mixed = QuantizeRecipe(budget_bits=5.0)
    assert (mixed.bits, mixed.choices) == (None, (3, 4, 8))


def test_eight_bits_are_symmetric_beside_layers_that_are_not():
    recipe = QuantizeRecipe(budget_bits=5.0, symmetric=False)
    assert [recipe.grid(bits).symmetric for bits in recipe.choices] == [False, False, True]


def test_under_a_budget_activations_are_rounded_where_weights_have_eight_bits():
    recipe = QuantizeRecipe(activation_bits=8, budget_bits=5.0)
    assert recipe.choices == (3, 4, 8)
    assert [recipe.rounds_activations(bits) for bits in recipe.choices] == [False, False, True]
    assert [recipe.grid(bits).group for bits in recipe.choices] == [32, 32, 0]


def test_only_what_reads_text_needs_text():
    assert QuantizeRecipe("gptq").calibrates
    assert QuantizeRecipe("rtn", budget_bits=5.0).calibrates
    assert not QuantizeRecipe("rtn").calibrates
    assert not QuantizeRecipe("nf4").calibrates


@pytest.mark.parametrize(
    ("settings", "param", "message"),
    [
        ({"method": "best"}, "method", "rtn, gptq, awq or nf4, but is 'best'"),
        ({"bits": 5}, "bits", "3, 4, 8 bits, but bits is 5"),
        ({"bits": 0}, "bits", "but bits is 0"),
        ({"group": 48}, "group", "a multiple of 32 inputs"),
        ({"group": -32}, "group", "a multiple of 32 inputs"),
        ({"bits": 8, "symmetric": False}, "symmetric", "8 bits have a symmetric grid"),
        ({"damping": 0.0}, "damping", "between 0 and 1, but is 0"),
        ({"damping": 1.5}, "damping", "between 0 and 1, but is 1.5"),
        ({"window": 8}, "calibration_tokens", "windows of 16 tokens or more"),
        ({"calibration_tokens": 100}, "calibration_tokens", "one window at least"),
        ({"activation_bits": 4}, "activation_bits", "8 or 16 bits, but activation_bits is 4"),
        ({"activation_bits": 8, "bits": 4}, "activation_bits", "go with weights of 8 bits"),
        ({"activation_bits": 8, "group": 32}, "activation_bits", "one scale a row"),
        ({"activation_bits": 8, "symmetric": False}, "activation_bits", "symmetric is false"),
        ({"activation_bits": 8, "method": "nf4"}, "activation_bits", "need weights of 8 bits, but the method is nf4"),
        ({"activation_bits": 8, "budget_bits": 5.0, "choices": (3, 4)}, "choices", "but choices are 3, 4"),
        ({"method": "nf4", "bits": 8}, "bits", "NF4 has 4 bits, but bits is 8"),
        ({"method": "nf4", "group": 48}, "group", "a block of NF4 has"),
        ({"method": "nf4", "symmetric": False}, "symmetric", "fixed levels"),
        ({"method": "nf4", "budget_bits": 4.5}, "budget_bits", "takes no budget"),
        ({"budget_bits": 4.5, "bits": 4}, "budget_bits", "same bits or a budget"),
        ({"budget_bits": -1.0}, "budget_bits", "between 0 and 32 bits"),
        ({"budget_bits": 4.5, "choices": (8, 4)}, "choices", "smallest first, but are 8, 4"),
        ({"budget_bits": 4.5, "choices": (2, 4)}, "choices", "different ones of 3, 4, 8"),
        ({"choices": (4, 8)}, "choices", "there is no budget"),
        ({"budget_bits": 4.5, "sensitivity_tokens": 1}, "sensitivity_tokens", "16 tokens or more"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_rule_and_the_value(settings, param, message):
    with pytest.raises(Invalid, match=message.replace("(", r"\(")) as caught:
        QuantizeRecipe(**settings)
    assert caught.value.param == param
