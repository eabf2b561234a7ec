"""Log-probabilities of given tokens by vLLM: vllm_perplexity.py TOKENS.json OUT.json FOLDER... (its environment).

TOKENS holds lists of token ids. OUT gets, for each folder, the mean nats a token, or the error that vLLM raised.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vllm import LLM, SamplingParams


def main() -> None:
    windows = json.loads(Path(sys.argv[1]).read_text())
    found: dict[str, object] = {}
    for folder in sys.argv[3:]:
        try:
            longest = max(map(len, windows)) + 1
            # By default vLLM wants 92 % of all memory to be free.
            model = LLM(folder, enforce_eager=True, max_model_len=longest, dtype="bfloat16", gpu_memory_utilization=0.4)
            asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
            told = model.generate([{"prompt_token_ids": ids} for ids in windows], asked, use_tqdm=False)
            nats = [
                -entry[token].logprob
                for one, ids in zip(told, windows, strict=True)
                for token, entry in zip(ids[1:], one.prompt_logprobs[1:], strict=True)
            ]
            found[folder] = sum(nats) / len(nats)
            del model
        except Exception as error:  # whatever it is, it is the finding
            found[folder] = f"{type(error).__name__}: {str(error)[:600]}"
        Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
