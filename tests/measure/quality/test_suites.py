"""Suites that compare engines, look inside them, or read free text; on the fake engine and on made-up answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from temper.engines.base import Capabilities, Scores
from temper.engines.fake import FakeEngine
from temper.engines.openai import Endpoint, OpenAIEngine
from temper.errors import Invalid, Unsupported
from temper.measure.quality.agreement import LIKELIEST, AgreementSuite
from temper.measure.quality.compare import compare
from temper.measure.quality.evaluate import evaluate
from temper.measure.quality.kinds import Needs, find
from temper.measure.quality.likelihood import DivergenceSuite, PerplexitySuite, _bucketed, passages
from temper.measure.quality.perplexity import corpus
from temper.measure.quality.writing import WritingSuite
from temper.profile import schema
from tests.engines.serving import serving
from tests.measure.quality.answering import AnsweringEngine


async def fake() -> FakeEngine:
    engine = FakeEngine(schema.FakeEngine(script="words"))
    await engine.start()
    return engine


def test_passages_are_the_whole_text():
    assert "".join(passages()) == corpus()
    assert min(map(len, passages())) > 100


async def test_an_engine_predicts_as_well_as_itself():
    engine = await fake()
    first = await evaluate(engine, PerplexitySuite(), 1, 5)
    again = await evaluate(engine, PerplexitySuite(), 1, 5)
    assert first.score == again.score
    assert first.figure("bits_per_byte").value > 0
    assert compare(first, again).effect == 0.0


class ScoringEngine(AnsweringEngine):
    """Three tokens; every position has the same distribution."""

    def __init__(self, *shares: float) -> None:
        super().__init__(lambda request: "x")
        self._logs = np.log(np.asarray(shares, np.float32))

    def capabilities(self) -> Capabilities:
        return Capabilities("scoring", tokenize=True, score=True)

    async def tokenize(self, text, *, add_special_tokens=True):
        return [len(word) % 3 for word in str(text).split()]

    async def score(self, tokens, top_k=None):
        return Scores(self._logs[list(tokens[1:])], None, np.tile(self._logs, (len(tokens) - 1, 1)))


async def test_divergence_over_the_whole_vocabulary_by_hand():
    reference, engine = ScoringEngine(0.5, 0.3, 0.2), ScoringEngine(0.3, 0.5, 0.2)
    report = await evaluate(engine, DivergenceSuite(reference, engine), 1, 3)
    assert report.primary.metric.name == "kl"
    assert report.score == pytest.approx(0.5 * math.log(5 / 3) + 0.3 * math.log(3 / 5), rel=1e-5)
    assert report.figure("top_1").value == 0.0


async def test_without_the_whole_vocabulary_the_top_is_compared_and_named_so():
    engine = await fake()
    async with serving(FakeEngine(schema.FakeEngine(script="words"))) as url:
        remote = OpenAIEngine(schema.OpenAIEngine(), endpoint=Endpoint(url))
        await remote.start()
        top = await evaluate(remote, DivergenceSuite(engine, remote), 1, 2)
        await remote.stop()
    assert top.primary.metric.name == "kl_top_k"
    assert top.score == pytest.approx(0.0, abs=1e-6)
    assert top.figure("top_1").value == 1.0


def test_what_is_lumped_together_never_exceeds_the_divergence():
    p, q = [0.5, 0.3, 0.15, 0.05], [0.2, 0.3, 0.1, 0.4]
    whole = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    top_p, top_q = (
        {bytes([token]): math.log(shares[token]) for token in kept} for shares, kept in ((p, (0, 1)), (q, (3, 0)))
    )
    lumped = 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
    assert _bucketed(top_p, top_q) == pytest.approx(lumped)
    assert lumped < whole


async def test_what_cannot_be_looked_into_says_so():
    blind = AnsweringEngine(lambda request: "x")
    with pytest.raises(Unsupported, match="does not tokenize"):
        await evaluate(blind, PerplexitySuite(), 1, 2)


async def test_agreement_with_itself_and_with_another():
    one = AnsweringEngine(lambda request: "the cat sat on the mat")
    other = AnsweringEngine(lambda request: "the cat sat on a mat")
    same = await evaluate(one, AgreementSuite(one), 1, 4)
    assert (same.score, same.figure("exact").value) == (1.0, 1.0)
    apart = await evaluate(other, AgreementSuite(one), 1, 4)
    assert apart.figure("exact").value == 0.0
    assert apart.figure("similarity").value == pytest.approx(5 / 6)
    # Outright: a model's makers may recommend a penalty, and the other side know nothing of it.
    assert all(request.sampling == LIKELIEST for request in one.seen)
    assert (LIKELIEST.temperature, LIKELIEST.repetition_penalty) == (0.0, 1.0)


async def test_stories_that_go_in_circles_are_seen():
    circles = await evaluate(AnsweringEngine(lambda request: "and so it goes on. " * 20), WritingSuite(), 1, 3)
    varied = await evaluate(AnsweringEngine(lambda request: corpus()[:600]), WritingSuite(), 1, 3)
    assert circles.score > 0.8 > 0.2 > varied.score
    assert circles.figure("distinct_2").value < varied.figure("distinct_2").value
    assert circles.figure("surprise").value is None  # this engine tells no log-probabilities


async def test_overlap_of_records_and_of_a_file(tmp_path):
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    suite = find("overlap")
    right = {item.request.messages[-1].content: item.reference.references[1] for item in suite.items(1, 3)}
    report = await evaluate(AnsweringEngine(lambda request: right[request.messages[-1].content]), suite, 1, 3)
    assert (report.score, report.figure("rouge_l").value) == (pytest.approx(1.0), pytest.approx(1.0))
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "翻译", "references": ["今天天气很好"]}, ensure_ascii=False) + "\n")
    chinese = await evaluate(AnsweringEngine(lambda request: "今天天气很好"), find("overlap", Needs(pairs=file)), 1, 5)
    assert (chinese.count, chinese.score, chinese.figure("rouge_l").value) == (1, pytest.approx(1.0), 1.0)
    file.write_text('{"prompt": "x"}\n')
    with pytest.raises(Invalid, match=r"pairs.jsonl, line 1"):
        find("overlap", Needs(pairs=file))
