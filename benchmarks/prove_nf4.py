"""NF4 against bitsandbytes: the same codes, the same maxima, and the same values read back, bit for bit.

Over every linear layer of a model, and over tensors made to be awkward: rests of blocks, zeros, constants, denormal
and huge numbers, values on the borders between two levels. Both directions: what bitsandbytes makes of the tensors,
and what it reads in the blocks that Temper made, beside what Temper's own reader of checkpoints reads there.
Values are read flat, as they are stored: the CPU kernel of bitsandbytes 0.50.2 misreads rows that no block divides, of
its own making too.

    make prove nf4 ARGS='--bitsandbytes FOLDER'      (FOLDER: benchmarks/peers/bitsandbytes.sh FOLDER)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import report
from temper import api
from temper.kernels.stored import StoredTensor
from temper.models.weights.bitsandbytes import unpack
from temper.refine.formats.bitsandbytes import packed
from temper.refine.network import open_network
from temper.refine.quantize.linears import linears, weight_of
from temper.refine.quantize.nf4 import LEVELS, quantize_nf4

JUDGE = Path(__file__).parent / "peers" / "bitsandbytes_nf4.py"


def awkward() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    borders = ((LEVELS[:-1] + LEVELS[1:]) / 2).astype(np.float32)
    around = np.concatenate([borders, np.nextafter(borders, np.float32(2)), np.nextafter(borders, np.float32(-2))])
    return {
        "normal": rng.normal(size=(96, 160)).astype(np.float32),
        "heavy_tailed": rng.standard_t(2, size=(64, 128)).astype(np.float32),
        "rest": rng.normal(size=(7, 33)).astype(np.float32),
        "odd": rng.normal(size=(3, 5)).astype(np.float32),
        "zeros": np.zeros((4, 64), np.float32),
        "constant": np.full((2, 64), 0.3, np.float32),
        "denormal": (rng.normal(size=(2, 64)) * 1e-40).astype(np.float32),
        "huge": (rng.normal(size=(2, 64)) * 1e37).astype(np.float32),
        "borders": np.concatenate([np.ones((1, 1), np.float32), around[None]], axis=1),
    }


def stored(tensors: dict[str, Any]) -> dict[str, StoredTensor]:
    formats = {"uint8": "u8", "float32": "f32"}
    return {
        name: StoredTensor(name, formats[str(values.dtype)], values.shape, values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        for name, values in tensors.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bitsandbytes", type=Path, required=True, help="where benchmarks/peers/bitsandbytes.sh set up"
    )
    parser.add_argument("--model", default=api.DEFAULT_MODEL)
    parser.add_argument("--every", type=int, default=1, help="take every n-th layer only")
    given = parser.parse_args()
    network = open_network(given.model, api.place().cache_dir)
    layers = {
        name.replace(".", "/"): weight_of(layer) for name, layer in list(linears(network.model).items())[:: given.every]
    }
    cases = {f"{name}@64": values for name, values in layers.items()}
    cases |= {f"{name}@{block}": values for name, values in awkward().items() for block in (64, 128)}
    ours = {name: quantize_nf4(values, int(name.rpartition("@")[2])) for name, values in cases.items()}
    sent: dict[str, Any] = dict(cases)
    for name, (codes, maxima) in ours.items():
        sent |= {f"{name}.codes": codes, f"{name}.maxima": maxima, f"{name}.shape": np.array(cases[name].shape)}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/in.npz", **sent)
        python = given.bitsandbytes / "env" / "bin" / "python"
        subprocess.run([python, JUDGE, f"{folder}/in.npz", f"{folder}/out.npz"], check=True)
        theirs = dict(np.load(f"{folder}/out.npz"))
    wrong = []
    for name, (codes, maxima) in ours.items():
        read = unpack(stored(packed("layer", cases[name], int(name.rpartition("@")[2]))))["layer.weight"]
        same = {
            "codes": np.array_equal(codes, theirs[f"{name}.codes"]),
            "maxima": np.array_equal(maxima, theirs[f"{name}.maxima"]),
            "values": np.array_equal(read.data.view(np.uint16), theirs[f"{name}.values"].reshape(-1)),
        }
        wrong += [f"{name}: {what}" for what, equal in same.items() if not equal]
    num_weights = sum(values.size for values in cases.values())
    body = (
        f"bitsandbytes {theirs['version']}, `{given.model}`: {len(layers)} layers and {len(cases) - len(layers)} "
        f"awkward tensors, {num_weights:,} weights.\n\n"
        + (
            "Codes, maxima and values read back are equal bit for bit."
            if not wrong
            else "Not equal:\n\n- " + "\n- ".join(wrong)
        )
    )
    report.write("nf4", "NF4 against bitsandbytes", body, {"num_weights": num_weights, "wrong": wrong,
                 "bitsandbytes": str(theirs["version"])})  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
