"""Task presets, temperature schedules, several samples, and a seed that repeats them."""

import sys

import temper

prompt = "Once upon a time"
with temper.load(sys.argv[1] if len(sys.argv) > 1 else "default") as model:
    print("creative:", model.generate(prompt, preset="creative", max_tokens=24, seed=7).text)

    # Hot at the start of each paragraph, cooling inside it.
    schedule = {"kind": "paragraph", "start": 1.0, "end": 0.4, "steps": 32}
    print("schedule:", model.generate(prompt, temperature_schedule=schedule, max_tokens=24, seed=7).text)

    several = model.generate(prompt, n=3, temperature=0.9, max_tokens=12, seed=7)
    again = model.generate(prompt, n=3, temperature=0.9, max_tokens=12, seed=7)
    for sample, same in zip(several.samples, again.samples, strict=True):
        print("-", sample.text.strip(), "(the same again)" if sample.text == same.text else "(not the same!)")
