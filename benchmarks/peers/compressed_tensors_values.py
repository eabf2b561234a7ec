"""The weights that compressed-tensors makes of folders: compressed_tensors_values.py FOLDER... (in vLLM's environment).

Writes the linear layers' values as `theirs.npz` into each folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig


def main() -> None:
    for folder in sys.argv[1:]:
        config = CompressedTensorsConfig(run_compressed=False)
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)
        layers = {name: m for name, m in model.named_modules() if hasattr(m, "in_features") and name != "lm_head"}
        np.savez(Path(folder) / "theirs.npz", **{name: m.weight.detach().numpy() for name, m in layers.items()})


if __name__ == "__main__":
    main()
