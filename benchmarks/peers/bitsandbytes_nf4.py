"""What bitsandbytes makes of tensors in NF4: python bitsandbytes_nf4.py IN.npz OUT.npz (in its own environment).

IN holds float32 tensors under names that end in `@BLOCK`; OUT their codes, maxima, and the values that they stand for.
IN may hold `NAME.codes`, `NAME.maxima`, `NAME.shape` too, made by Temper: OUT then has what bitsandbytes reads there.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from bitsandbytes import __version__
from bitsandbytes.functional import QuantState, dequantize_4bit, get_4bit_type, quantize_4bit


def main() -> None:
    given = np.load(sys.argv[1])
    found: dict[str, np.ndarray] = {"version": np.array(__version__)}
    for name in given.files:
        base, _, part = name.partition(".")
        block = int(base.rpartition("@")[2])
        if not part:
            codes, state = quantize_4bit(torch.from_numpy(given[name]), blocksize=block, quant_type="nf4")
            found |= {f"{name}.codes": codes.reshape(-1).numpy(), f"{name}.maxima": state.absmax.numpy()}
        elif part == "codes":
            flat = torch.Size([int(given[f"{base}.shape"].prod())])
            state = QuantState(
                absmax=torch.from_numpy(given[f"{base}.maxima"]), shape=flat, blocksize=block, quant_type="nf4",
                code=get_4bit_type("nf4", device="cpu"), dtype=torch.bfloat16,
            )  # fmt: skip
            values = dequantize_4bit(torch.from_numpy(given[name])[:, None], state)
            found[f"{base}.values"] = values.view(torch.int16).numpy().view(np.uint16)
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
