"""A GGUF as a transformers folder in bf16: for engines that cannot read the quantized file.

python dequantize.py WEIGHTS.gguf FOLDER   (in an environment with torch, transformers, gguf and accelerate)
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main() -> None:
    weights, folder = Path(sys.argv[1]), Path(sys.argv[2])
    given = {"gguf_file": weights.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(
        weights.parent, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16, **given
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights.parent, **given).save_pretrained(folder)


if __name__ == "__main__":
    main()
