"""The verb that runs an end-to-end recipe: from a base model to a smaller one that was taught, examined and canaried.

Each stage is a verb of this house over the folder of the one before it; `refine.stages` knows what is done.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.api.canary import canary, questions_of
from temper.api.checkpoints import Progress
from temper.api.comparing import ab
from temper.api.data import generate_data
from temper.api.environment import Place, place
from temper.api.evaluating import evaluate
from temper.api.refining import distill, merge, quantize, train

if TYPE_CHECKING:
    from temper.profile.section import Section
    from temper.refine.course import Course
    from temper.refine.stages import Results, Stage
    from temper.refine.telling import Tell

GREEDY = {"temperature": 0.0}
"""Exams are sat without chance."""
CALIBRATION_RECORDS = 400
CALLERS = 4
"""Who ask at a time in the comparison."""
WARMUP = 8


def courses() -> dict[str, str]:
    """The end-to-end recipes that come with Temper, and what comes of each."""
    from temper.refine.courses import course_names, course_text

    return {name: str(tomllib.loads(course_text(name))["about"]) for name in course_names()}


def course(
    recipe: str | Path | Mapping[str, Any],
    out: str | Path,
    changes: Sequence[str] = (),
    *,
    stages: Sequence[str] = (),
    budget_s: float | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
    where: Place | None = None,
) -> dict[str, Any]:
    """Run an end-to-end recipe in the folder `out`, or go on where an earlier call stopped.

    `recipe` is a name of `courses()`, a TOML file, or plain data; `changes` (`key=value`) go on top. `stages` names
    those to run alone; no stage begins after `budget_s` seconds, and training ends then, to go on next time.

    Returns `{"out", "done", "left", "reason", "seconds", "results", "table"}`, ready for JSON; `table` is None until
    base and taught model have sat their exams.

    Raises:
        NotFound, FetchFailed, CheckpointError: a recipe, a model or a file cannot be had.
        Invalid: the recipe or a stage cannot be, or `out` holds what was made otherwise.
        MissingExtra: torch or transformers is not installed.
    """
    from temper.refine.stages import run_stages

    wanted, here, folder = read_course(recipe, changes), where or place(), Path(out)
    plan = _Plan(wanted, folder, here, say).stages()
    went = run_stages(plan, folder, only=stages, budget_s=budget_s, tell=progress or _silent, say=say)
    results: dict[str, Any] = dict(went.results)
    return {
        "about": wanted.about,
        "out": str(folder),
        "done": list(results),
        "left": list(went.left),
        "reason": went.reason,
        "seconds": went.seconds,
        "results": results,
        "table": _table(wanted, results),
    }


def read_course(recipe: str | Path | Mapping[str, Any], changes: Sequence[str] = ()) -> Course:
    """The recipe of a name, a TOML file or plain data, with changes on top.

    Raises:
        NotFound: there is no such name or file.
        Invalid: it breaks the schema.
    """
    from temper.refine.course import Course
    from temper.refine.courses import course_text
    from temper.refine.recipes import make_recipe, read_recipe

    if isinstance(recipe, Mapping):
        return make_recipe(Course, recipe, changes)
    if str(recipe).endswith(".toml"):
        return read_recipe(Course, Path(recipe), changes)
    return make_recipe(Course, tomllib.loads(course_text(str(recipe))), changes, source=str(recipe))


def _silent(what: str, done: int, total: int) -> None:
    pass


class _Plan:
    """The stages of one recipe over one folder. Paths in results are relative to it."""

    def __init__(self, wanted: Course, folder: Path, here: Place, say: Callable[[str], None]) -> None:
        self._wanted, self._folder, self._here, self._say = wanted, folder, here, say

    def stages(self) -> list[Stage]:
        """In the order in which they are run."""
        from temper.refine.stages import Stage

        wanted = self._wanted
        exam = wanted.exam.model_dump(mode="json")
        found = [
            Stage("data", self._data, {**wanted.data.model_dump(mode="json"), "exam_seed": wanted.exam.seed},
                  resumable=True),
            Stage("exam-base", self._exam(None), {"model": wanted.model, **exam}),
            Stage("teach", self._teach, {"model": wanted.model, **_decides(wanted.teach)}, ("data",), resumable=True),
            Stage("exam-teach", self._exam("teach"), exam, ("teach",)),
        ]  # fmt: skip
        last = "teach"
        if wanted.distill is not None:
            needs = ("data", "teach")
            found.append(Stage("distill", self._distill, _decides(wanted.distill), needs, resumable=True))
            found.append(Stage("exam-distill", self._exam("distill"), exam, ("distill",)))
            last = "distill"
        if wanted.quantize is not None:
            settings = {"of": last, **wanted.quantize.model_dump(mode="json")}
            found.append(Stage("quantize", self._quantize(last), settings, ("data", last)))
            found.append(Stage("exam-quantize", self._exam("quantize"), exam, ("quantize",)))
        both = ("teach", wanted.result)
        for name, section, run in (
            ("cost", wanted.cost, self._cost), ("compare", wanted.compare, self._compare),
            ("canary", wanted.canary, self._canary),
        ):  # fmt: skip
            if section is not None:
                settings = {**section.model_dump(mode="json"), "exam": exam}
                found.append(Stage(name, run, settings, both))
        return found

    def _data(self, folder: Path, results: Results, tell: Tell) -> Mapping[str, Any]:
        data, path = self._wanted.data, folder / "train.jsonl"
        if path.is_file():  # ended between the file and the stage's manifest
            made = json.loads((folder / "train.jsonl.manifest.json").read_text("utf-8"))
        else:
            made = generate_data(
                path, data.tasks, count=data.count, levels=data.levels, seed=data.seed,
                held_out_seed=self._wanted.exam.seed, held_out_count=data.held_out, progress=tell, where=self._here,
            )  # fmt: skip
        return {"train": self._shown(path), "num_records": made["num_records"], "data_sha256": made["data_sha256"]}

    def _teach(self, folder: Path, results: Results, tell: Tell) -> Mapping[str, Any]:
        from temper.refine.train.recipe import TrainRecipe

        teach, run = self._wanted.teach, folder / "run"
        recipe = {
            **teach.model_dump(mode="json", exclude={"validation_share"}, exclude_unset=True),
            "model": self._wanted.model, "out": str(run.resolve()),
            "data": self._learned(results, teach.validation_share),
        }  # fmt: skip
        found = self._trained(run, TrainRecipe, recipe, lambda: train(recipe, progress=tell, where=self._here))
        if teach.lora is None:
            return found
        out = folder / "merged"
        shutil.rmtree(out, ignore_errors=True)
        adapter = self._folder / str(found["checkpoint"])
        merge(adapter, out, model=self._wanted.model, progress=tell, where=self._here)
        return {**found, "adapter": found["checkpoint"], "checkpoint": self._shown(out)}

    def _distill(self, folder: Path, results: Results, tell: Tell) -> Mapping[str, Any]:
        from temper.refine.distill.recipe import DistillRecipe

        distil, run = self._wanted.distill, folder / "run"
        assert distil is not None
        recipe = {
            **distil.model_dump(mode="json", exclude={"validation_share"}, exclude_unset=True),
            "teacher": str(self._at(results, "teach").resolve()), "out": str(run.resolve()),
            "data": self._learned(results, distil.validation_share),
        }  # fmt: skip
        return self._trained(run, DistillRecipe, recipe, lambda: distill(recipe, progress=tell, where=self._here))

    def _quantize(self, of: str) -> Callable[[Path, Results, Tell], Mapping[str, Any]]:
        def run(folder: Path, results: Results, tell: Tell) -> Mapping[str, Any]:
            config, source, out = self._wanted.quantize, self._at(results, of), folder / "checkpoint"
            assert config is not None
            shutil.rmtree(out, ignore_errors=True)
            text = folder / "calibration.txt"
            text.write_text(self._calibration(source, results), "utf-8")
            found = quantize(
                str(source), out, text=text, measure=False, progress=tell, where=self._here,
                **config.model_dump(),
            )  # fmt: skip
            return {
                "checkpoint": self._shown(out), "num_bytes": found["num_bytes"], "parent_bytes": found["parent_bytes"]
            }  # fmt: skip

        return run

    def _calibration(self, source: Path, results: Results) -> str:
        """Conversations of the data as the model sees and continues them."""
        from temper.models.checkpoint import open_checkpoint
        from temper.refine.data.reading import records
        from temper.refine.train.examples import Renderer

        checkpoint = open_checkpoint(str(source), self._here.cache_dir)
        renderer, decode = Renderer(checkpoint), checkpoint.tokenizer.decode
        read = itertools.islice(records(self._folder / results["data"]["train"]), CALIBRATION_RECORDS)
        return "".join(decode(example.token_ids.tolist()) for record in read for example in renderer.examples(record))

    def _exam(self, of: str | None) -> Callable[[Path, Results, Tell], Mapping[str, Any]]:
        def run(folder: Path, results: Results, tell: Tell) -> Mapping[str, Any]:
            exam = self._wanted.exam
            named = self._wanted.model if of is None else str(self._at(results, of))
            found = evaluate(
                named, suites=exam.suites, count=exam.count, seed=exam.seed, sampling=GREEDY,
                max_tokens=exam.max_tokens, answers=True, tell=tell, where=self._here, in_process=True,
            )  # fmt: skip
            (folder / "answers.json").write_text(json.dumps(found["suites"], ensure_ascii=False, indent=1), "utf-8")
            return {"suites": {suite["suite"]: _scores(suite) for suite in found["suites"]}}

        return run

    def _cost(self, folder: Path, results: Results, tell: Tell) -> Mapping[str, Any]:
        """CPU seconds for each right answer, both asked the same in turns: who comes first alternates."""
        config, exam = self._wanted.cost, self._wanted.exam
        assert config is not None
        sums: dict[str, dict[str, Any]] = {
            name: {"cpu_s": 0.0, "wall_s": 0.0, "correct": 0.0, "tokens": 0} for name in ("teach", "result")
        }
        ratios = []
        for number in range(config.rounds):
            tell("asking both in turns", number, config.rounds)
            each = {}
            for name in ("teach", "result") if number % 2 == 0 else ("result", "teach"):
                at = self._at(results, "teach" if name == "teach" else self._wanted.result)
                [suite] = evaluate(
                    str(at), suites=exam.suites[:1], count=config.count, seed=exam.seed, sampling=GREEDY,
                    max_tokens=exam.max_tokens, where=self._here, in_process=True,
                )["suites"]  # fmt: skip
                metric = next(iter(suite["metrics"].values()))
                sums[name]["cpu_s"] += suite["cost"]["cpu_s"]
                sums[name]["wall_s"] += suite["cost"]["wall_s"]
                sums[name]["correct"] += metric["value"] * metric["num_items"]
                sums[name]["tokens"] += suite["tokens"]["completion"]
                each[name] = suite["cost"]["cpu_s_per_correct_answer"]
            if all(each.values()):
                ratios.append(each["result"] / each["teach"])
        for side in sums.values():
            side["cpu_s_per_correct_answer"] = side["cpu_s"] / side["correct"] if side["correct"] else None
        ours, theirs = (sums[name]["cpu_s_per_correct_answer"] for name in ("result", "teach"))
        return {**sums, "ratio": ours / theirs if ours and theirs else None, "ratios": ratios}

    def _compare(self, folder: Path, results: Results, tell: Tell) -> Mapping[str, Any]:
        from temper.measure.workload.schema import Workload

        config, exam = self._wanted.compare, self._wanted.exam
        assert config is not None
        asked = folder / "questions.jsonl"
        questions = questions_of(exam.suites[0], exam.seed, WARMUP + config.units * config.requests)
        asked.write_text("".join(json.dumps({"prompt": question}) + "\n" for question in questions), "utf-8")
        workload = Workload.model_validate({
            "name": exam.suites[0],
            "warmup": WARMUP,
            "arrivals": {"kind": "closed", "concurrency": CALLERS},
            "content": {"kind": "questions", "path": str(asked),
                        "output_tokens": {"kind": "fixed", "tokens": exam.max_tokens}},
        })  # fmt: skip
        found = ab(
            str(self._at(results, "teach")), str(self._at(results, self._wanted.result)),
            units=config.units, requests=config.requests, restart=False, suites={exam.suites[0]: config.items},
            load={"workload": workload}, tell=self._say, where=self._here,
            changes_a={"in_process": True}, changes_b={"in_process": True},
        )  # fmt: skip
        (folder / "ab.json").write_text(json.dumps(found, ensure_ascii=False, indent=1, default=str), "utf-8")
        guards = {guard["metric"]: {name: guard[name] for name in ("verdict", "effect", "interval")}
                  for guard in found["guardrails"]}  # fmt: skip
        kept = {name: found[name] for name in ("verdict", "reason", "metric", "effect", "interval", "confidence")}
        return {**kept, "guardrails": guards}

    def _canary(self, folder: Path, results: Results, tell: Tell) -> Mapping[str, Any]:
        config, exam = self._wanted.canary, self._wanted.exam
        assert config is not None
        return canary(
            self._at(results, "teach"), self._at(results, self._wanted.result), config, folder,
            suite=exam.suites[0], seed=exam.seed, max_tokens=exam.max_tokens, tell=tell, where=self._here,
        )  # fmt: skip

    def _learned(self, results: Results, validation_share: float) -> dict[str, Any]:
        train = (self._folder / results["data"]["train"]).resolve()
        return {"train": [str(train)], "validation_share": validation_share}

    def _trained(
        self, run: Path, schema: type[Section], recipe: Mapping[str, Any], work: Callable[[], object]
    ) -> Mapping[str, Any]:
        """What the run left; `work` is done where it is not finished."""
        from temper.models.manifest import read_steps
        from temper.refine.recipes import make_recipe
        from temper.refine.train.run import finished

        given = make_recipe(schema, recipe).model_dump(mode="json", exclude_defaults=True)
        if finished(run, given) is None:
            work()
        found = finished(run, given)
        assert found is not None
        name = "best" if "best" in found["checkpoints"] else "last"
        steps = read_steps(run / name)
        lines = (run / "history.jsonl").read_text("utf-8").splitlines()
        return {
            "checkpoint": self._shown(run / name),
            "measured": dict(steps[-1].measured) if steps else {},
            "seconds_in_steps": round(sum(json.loads(line)["seconds"] for line in lines), 1),
        }

    def _at(self, results: Results, stage: str) -> Path:
        """The checkpoint of a stage."""
        return self._folder / str(results[stage]["checkpoint"])

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self._folder))


def _decides(training: Any) -> dict[str, Any]:
    """Settings that decide what is learned and are not the defaults: a field that is new changes nothing."""
    found: dict[str, Any] = training.model_dump(
        mode="json", exclude={"saving": True, "compute": {"memory_bytes"}}, exclude_defaults=True
    )
    return found


def _scores(suite: Mapping[str, Any]) -> dict[str, Any]:
    """One suite of an exam: its figure, and every item's score for pairing."""
    name, metric = next(iter(suite["metrics"].items()))
    return {
        "value": metric["value"],
        "interval": metric["interval"],
        "truncation_rate": suite["truncation_rate"]["value"],
        "completion_tokens": suite["tokens"]["completion"],
        "cpu_s_per_correct_answer": suite["cost"]["cpu_s_per_correct_answer"],
        "items": {item["id"]: item["values"].get(name) for item in suite["items"]},
    }


def _table(wanted: Course, results: Results) -> dict[str, Any] | None:
    """The exams that were sat, side by side, with what was gained and kept; None before the first two were."""
    from temper.refine.exams import exam_table

    order = ("base", "teach", "distill", "quantize")
    exams = {name: results[f"exam-{name}"]["suites"] for name in order if f"exam-{name}" in results}
    if not {"base", "teach"} <= set(exams):
        return None
    return exam_table(exams, wanted.exam.suites, wanted.result if wanted.result in exams else "teach")
