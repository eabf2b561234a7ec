"""Load a model into this process and ask it something."""

import sys

import temper

with temper.load(sys.argv[1] if len(sys.argv) > 1 else "default") as model:
    answer = model.chat("Name three rivers.", max_tokens=64, seed=1)
    print(answer.text)
    print(f"({answer.usage.completion_tokens} tokens, ended by {answer.finish_reason})")
