"""Rehearse a study: the whole of `temper tune` on an invented machine, before it costs an hour on yours.

Leave `rehearse` out and the same call measures real engines.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import temper
from temper import api

MACHINE = """
[figures]
output_tokens_per_s = 100.0
quality = 0.8

[[effects]]
knob = "max_sequences"
metric = "output_tokens_per_s"
power = 0.3

[[effects]]                 # fast, and it hurts: the floor under the quality must refuse it
knob = "precision"
value = "int4"
metric = "output_tokens_per_s"
factor = 1.5

[[effects]]
knob = "precision"
value = "int4"
metric = "quality"
factor = 0.7

[[effects]]
knob = "max_sequences"
value = 256
trouble = "out_of_memory"
"""


with tempfile.TemporaryDirectory() as folder:
    scene = Path(folder) / "machine.toml"
    scene.write_text(MACHINE)
    found = temper.tune(
        "many-users",
        "default",
        objective="throughput",
        slo=False,
        budget="16 trials",
        knobs=("max_sequences", "precision"),
        rehearse=scene,
        where=replace(api.place(), home=Path(folder)),
        max_sequences=4,
    )

print(f"{found['verdict']}: {found['effect']:+.0%}, at least {found['interval'][0]:+.0%}")
for change in found["winner"]["changes"]:
    print(f"{change['path']}: {change['before']} -> {change['after']}")
print("met on the way:", found["evidence"]["troubles"])
