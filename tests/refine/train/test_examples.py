"""Records become the tokens that the served model will see, and only what it should write is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from temper.errors import Invalid
from temper.models.checkpoint import open_checkpoint
from temper.refine.data.record import read_record
from temper.refine.train.examples import Renderer
from temper.types import Message
from tests.tiny_models import CHAT_TEMPLATE, write_tiny_folder

TURNS = [
    {"role": "user", "content": "the one"},
    {"role": "assistant", "content": "<think>\nand\n</think>\n\non"},
    {"role": "user", "content": "the other"},
    {"role": "assistant", "content": "in"},
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return open_checkpoint(str(write_tiny_folder(folder)), folder)


def learned(checkpoint, example) -> str:
    return checkpoint.tokenizer.decode(example.token_ids[example.learned].tolist())


def test_an_answer_is_learned_with_the_token_that_ends_it(checkpoint):
    (example,) = Renderer(checkpoint).examples(read_record({"messages": TURNS[:2]}))
    text = checkpoint.tokenizer.decode(example.token_ids.tolist())
    prompt = checkpoint.template.render((Message("user", "the one"),))
    assert text == prompt + TURNS[1]["content"] + "<|im_end|>"
    assert learned(checkpoint, example) == TURNS[1]["content"] + "<|im_end|>"
    served = checkpoint.tokenizer.encode(prompt, add_special_tokens=False)
    assert example.token_ids[: len(served)].tolist() == served


def test_all_turns_or_the_last(checkpoint):
    (example,) = Renderer(checkpoint).examples(read_record({"messages": TURNS}))
    assert learned(checkpoint, example) == TURNS[1]["content"] + "<|im_end|>" + "in<|im_end|>"
    whole = checkpoint.template.render([Message(**turn) for turn in TURNS], add_generation_prompt=False)
    assert checkpoint.tokenizer.decode(example.token_ids.tolist()) == whole.removesuffix("\n")
    (last,) = Renderer(checkpoint, turns="last").examples(read_record({"messages": TURNS}))
    assert learned(checkpoint, last) == "in<|im_end|>"
    assert np.array_equal(last.token_ids, example.token_ids)
    (everything,) = Renderer(checkpoint, loss_on="everything").examples(read_record({"messages": TURNS}))
    assert everything.num_targets == len(everything) - 1


def test_turns_that_the_template_shows_differently_later_are_learned_apart(tmp_path: Path):
    """As DeepSeek's and Qwen3's templates do: thinking of earlier turns is left out, and a prompt opens `<think>`."""
    folder = write_tiny_folder(tmp_path)
    checkpoint = open_checkpoint(str(folder), tmp_path)
    strips = CHAT_TEMPLATE.replace("message['content'] +", "message['content'].split('</think>')[-1] +")
    opens = strips.replace("assistant\n' }}", "assistant\n<think>\n' }}")
    from temper.models.chat_template import ChatTemplate

    object.__setattr__(checkpoint, "template", ChatTemplate(opens, {}))
    first, second = Renderer(checkpoint).examples(read_record({"messages": TURNS}))
    assert learned(checkpoint, first) == "and\n</think>\n\non<|im_end|>"
    assert learned(checkpoint, second) == "in<|im_end|>"
    text = checkpoint.tokenizer.decode(second.token_ids.tolist())
    assert "and" not in text.split("the other")[0]
    assert text.endswith("assistant\n<think>\nin<|im_end|>")


def test_text_is_learned_whole(checkpoint):
    (example,) = Renderer(checkpoint).examples(read_record({"text": "the one and the other"}))
    assert example.num_targets == len(example) - 1
    assert learned(checkpoint, example).endswith("other<|im_end|>")


def test_a_conversation_in_which_nobody_answers(checkpoint):
    with pytest.raises(Invalid, match="has an assistant's turn, but this one has none"):
        Renderer(checkpoint).examples(read_record({"messages": TURNS[:1]}))
