from __future__ import annotations

import pytest

from temper.errors import Invalid, NotFound
from temper.measure.workload import schema
from temper.measure.workload.plan import plan
from temper.measure.workload.text import Wording


@pytest.mark.parametrize("name", schema.preset_names())
def test_every_preset_reads_and_plans(name):
    workload = schema.resolve(name)
    assert workload.name == name
    assert sum(len(session.requests) for session in plan(workload, Wording(), count=20)) == 20


def test_the_mlperf_limits_are_mlperfs():
    server, interactive = schema.resolve("mlperf-deepseek-r1-server"), schema.resolve("mlperf-deepseek-r1-interactive")
    assert (server.slo.ttft_ms, server.slo.tpot_ms, server.slo.percentile) == (2000, 80, 99)
    assert (interactive.slo.ttft_ms, interactive.slo.tpot_ms) == (1500, 15)
    assert server.content.output_tokens.high == 20000


@pytest.mark.parametrize(
    ("text", "param", "said"),
    [
        ("reqests = 3", "reqests", "did you mean 'requests'"),
        ("[arrivals]\nkind = 'closed'\nconcurency = 3", "arrivals.concurency", "did you mean 'concurrency'"),
        ("[content]\nkind='synthetic'\n[content.input_tokens]\nkind='normal'\nmean=1\nsd=1\nmin=3",
         "content.input_tokens.min", "known here: high, kind, low, mean, sd"),
        ("[content]\nkind='chat'", "content.kind", "'chats'"),
        ("requests = 0", "requests", "greater than or equal to 1"),
        ("requests = 'many'", "requests", "'many'"),
        ("[arrivals]\nkind = 'open'", "arrivals.rate", "must be given"),
        ("[slo]\npercentile = 42", "slo.percentile", "42"),
        ("[content]\nkind='synthetic'\ninput_tokens={kind='uniform',low=9,high=3}", "content.input_tokens", "9 > 3"),
        ("requests = ", "workload", "not TOML"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_the_nearest_right_word(text, param, said):
    with pytest.raises(Invalid) as caught:
        schema.parse(text)
    assert caught.value.param == param
    assert said in str(caught.value)


def test_unknown_workloads_name_the_nearest(tmp_path):
    with pytest.raises(NotFound, match="did you mean 'many-users'"):
        schema.resolve("many-user")
    with pytest.raises(NotFound, match="there is no workload file"):
        schema.resolve(str(tmp_path / "none.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match="cannot be read as text"):
        schema.resolve(str(tmp_path / "bytes.toml"))


def test_a_file_is_a_workload(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("name = 'mine'\nrequests = 5\n[arrivals]\nkind = 'open'\nrate = 2\n")
    workload = schema.resolve(str(file))
    assert workload.arrivals == schema.Open(rate=2.0)
    assert schema.validate(workload.model_dump(mode="json")) == workload
