"""lm-eval's `local-completions`, unchanged, scores a task made from local data on the real default model.

It needs the extra `evals`, which is heavy: without it this proof is skipped.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Server

lm_eval = pytest.importorskip("lm_eval", reason="the lm-eval proof needs the evals extra")
pytest.importorskip("tenacity", reason="the lm-eval proof needs the evals extra")

FACTS = [
    ("The capital of France is", [" Paris", " a banana", " seventeen"], 0),
    ("Two plus two equals", [" purple", " four", " Tuesday"], 1),
    ("Cats and dogs are", [" animals", " numbers", " galaxies"], 0),
    ("At night the sky is", [" dark", " edible", " written in Latin"], 0),
]
TASK = """
task: local_facts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_a_local_task_is_scored(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    data = tmp_path / "facts.jsonl"
    data.write_text("\n".join(json.dumps({"question": q, "choices": c, "gold": g}) for q, c, g in FACTS))
    (tmp_path / "facts.yaml").write_text(TASK.format(data=data))
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "base_url": f"{server.url}/v1/completions",
            "model": "default",
            "tokenizer_backend": "remote",
            "num_concurrent": 2,
            "max_length": 1024,
        },
        tasks=["local_facts"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        batch_size=2,
    )
    scores = found["results"]["local_facts"]
    assert scores["sample_len"] == len(FACTS)
    assert scores["acc,none"] >= 0.75
