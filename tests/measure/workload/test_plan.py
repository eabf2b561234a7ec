from __future__ import annotations

import itertools
import json

import pytest

from temper.errors import Invalid
from temper.measure.workload.plan import plan
from temper.measure.workload.schema import validate
from temper.measure.workload.text import Wording

IDS = Wording(tuple(range(1000, 1256)))


def fixed(tokens):
    return {"kind": "fixed", "tokens": tokens}


def prompts(**given):
    return [session.requests[0].prompt for session in plan(validate(given), IDS)]


def test_a_plan_depends_on_its_seed_alone():
    given = {
        "requests": 30,
        "content": {"kind": "synthetic", "input_tokens": {"kind": "uniform", "low": 4, "high": 40}},
    }
    assert prompts(**given) == prompts(**given)
    assert prompts(**given) != prompts(**given, seed=1)


def test_no_two_prompts_are_alike_across_ranges():
    workload = validate({"requests": 50, "content": {"kind": "synthetic", "input_tokens": fixed(8)}})
    first, second = plan(workload, IDS), plan(workload, IDS, first=50)
    assert [session.index for session in second] == list(range(50, 100))
    assert len({session.requests[0].prompt[:3] for session in first + second}) == 100


def test_groups_share_exactly_their_prefix():
    content = {"kind": "synthetic", "input_tokens": fixed(48), "shared_prefix_tokens": 32, "num_prefixes": 2}
    found = prompts(requests=6, content=content)
    assert {prompt[:32] for prompt in found[0::2]} == {found[0][:32]}
    assert {prompt[:32] for prompt in found[1::2]} == {found[1][:32]}
    assert found[0][:32] != found[1][:32]
    assert len({prompt[32:35] for prompt in found}) == 6
    assert all(len(prompt) == 48 for prompt in found)


def test_requests_carry_what_the_workload_says():
    content = {"kind": "synthetic", "output_tokens": fixed(77)}
    (session,) = plan(validate({"requests": 1, "seed": 9, "content": content}), IDS)
    (request,) = session.requests
    assert request.limits.max_tokens == 77
    assert request.stop.ignore_eos
    assert request.sampling.temperature == 0.0
    assert len(request.prompt) == 128


def test_each_turn_of_a_chat_begins_with_the_last_one():
    content = {"kind": "chats", "turns": fixed(3), "system_tokens": 20, "num_systems": 2}
    sessions = plan(validate({"requests": 12, "content": content}), IDS)
    assert [len(session.requests) for session in sessions] == [3, 3, 3, 3]
    for session in sessions:
        for earlier, later in itertools.pairwise(session.requests):
            assert later.messages[: len(earlier.messages)] == earlier.messages
            assert [m.role for m in later.messages[len(earlier.messages) :]] == ["assistant", "user"]
    assert sessions[0].requests[0].messages[0] == sessions[2].requests[0].messages[0]
    assert sessions[0].requests[0].messages[0] != sessions[1].requests[0].messages[0]


def test_exactly_as_many_requests_as_asked_for():
    sessions = plan(validate({"requests": 10, "content": {"kind": "chats", "turns": fixed(4)}}), IDS)
    assert [len(session.requests) for session in sessions] == [4, 4, 2]


def trace(tmp_path, lines):
    file = tmp_path / "trace.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return str(file)


def line(at, length, output, *ids):
    return {"timestamp": at, "input_length": length, "output_length": output, "hash_ids": list(ids)}


def test_mooncake_blocks_are_shared_as_recorded(tmp_path):
    path = trace(tmp_path, [line(0, 10, 3, 1, 2), line(500, 12, 5, 1, 2), line(900, 9, 5, 1, 3), line(1000, 8, 5, 4)])
    content = {"kind": "mooncake", "path": path, "block_tokens": 8, "max_output_tokens": 4}
    workload = validate({"requests": 4, "arrivals": {"kind": "recorded", "speed": 2.0}, "content": content})
    sessions = plan(workload, IDS)
    a, b, c, d = (session.requests[0].prompt for session in sessions)
    assert [len(prompt) for prompt in (a, b, c, d)] == [10, 12, 9, 8]
    assert b[:10] == a
    assert c[:8] == a[:8]
    assert c[8] != a[8] or c[:9] != a[:9]
    assert d[:8] != a[:8]
    assert [session.start_s for session in sessions] == [0.0, 0.25, 0.45, 0.5]
    assert [session.requests[0].limits.max_tokens for session in sessions] == [3, 4, 4, 4]


def test_a_trace_that_is_too_short_is_told(tmp_path):
    content = {"kind": "mooncake", "path": trace(tmp_path, [line(0, 8, 3, 1)] * 3), "block_tokens": 8}
    with pytest.raises(Invalid, match="the trace has 3 requests left, but 5 are asked for"):
        plan(validate({"requests": 5, "content": content}), IDS)


def test_recorded_arrivals_need_timestamps():
    with pytest.raises(Invalid, match="recorded arrivals need timestamps"):
        plan(validate({"arrivals": {"kind": "recorded"}}), IDS)


def test_questions_are_asked_in_their_order(tmp_path):
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": word}) for word in ("one?", "two?", "three?")))
    content = {"kind": "questions", "path": str(file), "output_tokens": {"kind": "fixed", "tokens": 9}}
    sessions = plan(validate({"requests": 2, "content": content}), IDS, first=1)
    assert [session.requests[0].messages[0].content for session in sessions] == ["two?", "three?"]
    assert {session.requests[0].limits.max_tokens for session in sessions} == {9}
    with pytest.raises(Invalid, match="has 0 requests left, but 2 are asked for"):
        plan(validate({"requests": 2, "content": content}), IDS, first=3)


def test_sharegpt_turns_keep_the_recorded_history(tmp_path):
    file = tmp_path / "chats.json"
    said = [("human", "one?"), ("gpt", "x" * 40), ("human", "two?"), ("gpt", "y" * 400), ("human", "unanswered")]
    file.write_text(json.dumps([{"conversations": [{"from": who, "value": text} for who, text in said]}]))
    content = {"kind": "sharegpt", "path": str(file), "max_output_tokens": 50}
    (session,) = plan(validate({"requests": 2, "content": content}), IDS)
    first, second = session.requests
    assert [m.content for m in first.messages] == ["one?"]
    assert [m.role for m in second.messages] == ["user", "assistant", "user"]
    assert (first.limits.max_tokens, second.limits.max_tokens) == (10, 50)
