"""Several prompts share the engine's steps: together they take far less time than one after the other."""

import asyncio
import sys

import temper

subjects = ["the sea", "a lighthouse", "the wind", "a dog"]
with temper.load(sys.argv[1] if len(sys.argv) > 1 else "default") as model:
    answers = model.generate([f"A sentence about {subject}:" for subject in subjects], max_tokens=24)
    for subject, answer in zip(subjects, answers, strict=True):
        print(f"{subject}: {answer.text.strip()}")

    async def race() -> None:
        """The same from coroutines: each is answered as soon as it is done."""
        tasks = [model.agenerate(f"{subject} is", max_tokens=8) for subject in subjects]
        for done in asyncio.as_completed(tasks):
            print("-", (await done).text.strip())

    asyncio.run(race())
