"""What a block of answers says: how far below the floor it is, and the report that it came from."""

from __future__ import annotations

from temper.measure.quality.report import Figure, Report, Result
from temper.measure.quality.suite import Metric
from temper.tuner.evaluate import Block


def quality_excess(before: Block, after: Block, margin: float | None) -> float:
    """How much worse than `margin` the quality of `after` is, in the suite's own score; at most 0 is allowed."""
    metric = metric_of(before)
    sign = 1 if metric.better == "higher" else -1
    worse_by = sign * (before.figures["quality"] - after.figures["quality"])
    return worse_by - (metric.margin if margin is None else margin)


def metric_of(block: Block) -> Metric:
    """What the block's scores measure, as its suite said."""
    described = dict(block.details["metric"])
    bounds = described.get("bounds")
    return Metric(**{**described, "bounds": None if bounds is None else (bounds[0], bounds[1])})


def report_of(block: Block) -> Report:
    """A quality block as the report that it came from, as far as comparing needs it."""
    metric = metric_of(block)
    results = tuple(Result(item, {metric.name: value}) for item, value in block.scores.items())
    figure = Figure(metric, block.figures["quality"], None, len(results))
    nothing = Figure(Metric("truncation_rate", "not kept"), None, None, 0)
    seed, suite = int(block.details["seed"]), str(block.details["suite"])
    return Report(suite, "", "", seed, len(results), {metric.name: figure}, nothing, results, block.seconds)
