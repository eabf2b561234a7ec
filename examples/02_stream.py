"""Read an answer while it is written; thinking and answer come apart."""

import sys

import temper

question = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "Why is the sky blue?"},
]
with temper.load(sys.argv[1] if len(sys.argv) > 1 else "default") as model:
    channel = ""
    for piece in model.stream(question, max_tokens=64):
        if piece.channel != channel:
            channel = piece.channel
            print(f"\n[{channel}]")
        print(piece.text, end="", flush=True)
    print()
