"""Thinking, with the real tokenizer and template of DeepSeek-R1-Distill-Qwen; only the weights are scripted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from temper.engines.native.engine import NativeEngine
from temper.models.chat_template import ChatTemplate
from temper.models.tokenizer import StreamDecoder, Tokenizer
from temper.types import Finished, Message, Stop, Thinking
from tests.engines.native.fakes import Answer, FakeExecutor, ask, gather, make_engine
from tests.models.conftest import cache_dir, r1_header, r1_metadata, r1_tokenizer  # noqa: F401

SPECIAL = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}


class R1Executor(FakeExecutor):
    vocab_size = 152064


@pytest.fixture
def r1(r1_metadata: Mapping[str, Any], r1_tokenizer: Tokenizer):  # noqa: F811
    source = str(r1_metadata["tokenizer.chat_template"])
    # The header carries the template as first published; DeepSeek's present one opens the thinking itself.
    opening = source.replace("{{'<｜Assistant｜>'}}{% endif %}", "{{'<｜Assistant｜><think>\\n'}}{% endif %}")
    assert opening != source

    async def run(script: str, opened: bool = True, **fields) -> Answer:
        template = ChatTemplate(opening if opened else source, SPECIAL)
        assert template.opens_thinking == opened
        found, executor = make_engine(check=False)
        ids = r1_tokenizer.encode(script, add_special_tokens=False)
        scripted = R1Executor(executor.spec, [*ids, r1_tokenizer.eos_ids[0]], check=False)
        model = replace(
            found._open_model(found._section), executor=scripted, tokenizer=r1_tokenizer,
            decoder=partial(StreamDecoder, r1_tokenizer), template=template,
        )  # fmt: skip
        engine = NativeEngine(found._section, lambda _: model)
        await engine.start()
        try:
            assert engine.capabilities().thinking
            fields.setdefault("stop", Stop())
            fields.setdefault("max_tokens", 100)
            return await gather(engine, ask(messages=(Message("user", "9.9 or 9.11?"),), **fields))
        finally:
            await engine.stop()

    return run


@pytest.mark.parametrize(("script", "reasoning", "answer"), [
    ("Let me compare.\n</think>\n\n**9.9** is larger.", "Let me compare.", "**9.9** is larger."),
    ("<think>\nLet me compare.\n</think>\n\n9.9", "Let me compare.", "9.9"),
    ("never closed", "never closed", ""),
    ("hm</think>so</think>!", "hm", "so!"),
    ("想一想。</think>答案是 9.9。🙂", "想一想。", "答案是 9.9。🙂"),
])  # fmt: skip
async def test_the_split(r1, script: str, reasoning: str, answer: str):
    found = await r1(script)
    assert found.text(channel="reasoning") == reasoning
    assert found.text(channel="answer") == answer
    assert found.finished() == Finished(0, "stop")


async def test_the_first_template_leaves_the_opening_to_the_model(r1):
    found = await r1("<think>\nhm\n</think>\n\n9.9", opened=False)
    assert (found.text(channel="reasoning"), found.text(channel="answer")) == ("hm", "9.9")
    found = await r1("hm\n</think>\n\n9.9", opened=False, thinking=Thinking(enabled=True))
    assert (found.text(channel="reasoning"), found.text(channel="answer")) == ("hm", "9.9")
    found = await r1("9.9 is larger", opened=False)
    assert (found.text(channel="reasoning"), found.text(channel="answer")) == ("", "9.9 is larger")


async def test_the_budget_forces_the_real_close_tag(r1, r1_tokenizer: Tokenizer):  # noqa: F811
    found = await r1("wait " * 60, max_tokens=30, thinking=Thinking(budget_tokens=8))
    assert found.text(channel="reasoning").split() == ["wait"] * 8
    assert found.text(channel="answer").startswith("wait")
    assert r1_tokenizer.think_ids is not None
    assert found.tokens()[8] == r1_tokenizer.think_ids[1]
    assert found.done.usage.reasoning_tokens == 9
