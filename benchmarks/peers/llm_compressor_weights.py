"""What llm-compressor makes of a model: llm_compressor_weights.py SETTINGS.json (in its own environment).

SETTINGS has `base` (a transformers folder), `windows` (calibration tokens), `method` (`gptq` or `awq`), `bits`,
`group`, `out` (a folder). Writes the compressed checkpoint there, and `weights.safetensors`: every parameter as that
checkpoint stands for it, in float32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, PreTrainedTokenizerFast


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    out, windows = Path(given["out"]), given["windows"]
    weights = {"num_bits": given["bits"], "type": "int", "symmetric": True, "strategy": "group",
               "group_size": given["group"]}  # fmt: skip
    scheme = {"ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    recipe = [GPTQModifier(**scheme)] if given["method"] == "gptq" else [AWQModifier(), QuantizationModifier(**scheme)]
    IntermediatesCache.pin_memory = lambda *args, **others: None  # AWQ pins for a GPU, and dies where there is none
    model = AutoModelForCausalLM.from_pretrained(given["base"], dtype=torch.float32)
    read = [{"input_ids": torch.tensor(window), "attention_mask": torch.ones(len(window), dtype=torch.long)}
            for window in windows]  # fmt: skip
    oneshot(
        model=model, recipe=recipe, dataset=DataLoader(read, batch_size=1),
        processor=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE())),  # asked for, though tokens are given
    )  # fmt: skip
    model.save_pretrained(out, save_compressed=True)
    plain = AutoModelForCausalLM.from_pretrained(
        out, quantization_config=CompressedTensorsConfig(run_compressed=False), dtype=torch.float32
    )
    # Scales and shapes of the compressed form stay beside what they were decompressed to.
    save_file({name: values.detach().contiguous() for name, values in plain.named_parameters()
               if not name.rpartition(".")[2].startswith("weight_")}, out / "weights.safetensors")  # fmt: skip


if __name__ == "__main__":
    main()
