"""GGUF out: the format's own package and our reader find every value as it was."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from temper.errors import Invalid
from temper.kernels.weights import dequantize
from temper.models.checkpoint import open_checkpoint
from temper.models.weights.gguf_names import gguf_name
from temper.refine.formats.gguf import write_checkpoint
from temper.refine.network import open_network
from temper.refine.quantize.checkpoint import quantize
from temper.refine.quantize.recipe import QuantizeRecipe
from tests.tiny_models import CHAT_TEMPLATE, permuted, write_tiny_folder, write_tiny_gguf


def silent(what: str, done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        (QuantizeRecipe("rtn"), "q4_0"),
        (QuantizeRecipe("rtn", bits=3, symmetric=False), "q4_1"),
        (QuantizeRecipe("rtn", bits=8), "q8_0"),
        (QuantizeRecipe("nf4"), "bf16"),
    ],
    ids=["q4_0", "q4_1", "q8_0", "bf16"],
)
def test_every_value_is_as_it_was(tmp_path: Path, architecture, recipe, kind):
    source = write_tiny_folder(tmp_path / "plain", architecture)
    quantize(open_network(str(source), tmp_path), recipe, [], "", tmp_path / "small", silent)
    checkpoint = open_checkpoint(str(tmp_path / "small"), tmp_path)
    formats = write_checkpoint(tmp_path / "small.gguf", checkpoint)
    assert formats[kind] == 3 * 7 + (2 if kind == "bf16" else 0)

    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "small.gguf").tensors}
    again = open_checkpoint(str(tmp_path / "small.gguf"), tmp_path)
    assert set(again.tensors) == set(checkpoint.tensors)
    for name, tensor in checkpoint.tensors.items():
        values = dequantize(tensor)
        part = name.split(".")[-2]
        if architecture == "llama" and part in ("q_proj", "k_proj"):
            values = permuted(values, 6 if part == "q_proj" else 2)
        assert np.array_equal(dequantize(again.tensors[name]), values), name
        if name != "rope.inv_freq":
            found = theirs[gguf_name(name)]
            read = gguf.quants.dequantize(found.data, found.tensor_type).reshape(values.shape)
            assert np.array_equal(read, values), name
    text = "the lazy dogs can't jump over 12,345 foxes <|im_end|>"
    assert again.tokenizer.encode(text) == checkpoint.tokenizer.encode(text)
    assert again.tokenizer.special.bos == checkpoint.tokenizer.special.bos
    assert again.template.source == CHAT_TEMPLATE
    assert again.generation == pytest.approx(checkpoint.generation)
    assert again.config.context_length == 512


def test_a_gguf_goes_through_unchanged(tmp_path: Path):
    source = open_checkpoint(str(write_tiny_gguf(tmp_path / "a.gguf", quantization="q4_1")), tmp_path)
    write_checkpoint(tmp_path / "b.gguf", source)
    again = open_checkpoint(str(tmp_path / "b.gguf"), tmp_path)
    for name, tensor in source.tensors.items():
        assert (again.tensors[name].format, again.tensors[name].data.tobytes()) == (
            tensor.format, tensor.data.tobytes(),
        )  # fmt: skip


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 128},
    ],
    ids=lambda scaling: scaling["rope_type"],
)  # fmt: skip
def test_stretched_positions_stay_as_they_are(tmp_path: Path, scaling):
    source = open_checkpoint(str(write_tiny_folder(tmp_path / "plain", rope_scaling=scaling)), tmp_path)
    write_checkpoint(tmp_path / "a.gguf", source)
    again = open_checkpoint(str(tmp_path / "a.gguf"), tmp_path)
    np.testing.assert_allclose(
        dequantize(again.tensors["rope.inv_freq"]), dequantize(source.tensors["rope.inv_freq"]), rtol=1e-6
    )
    assert again.config.context_length == source.config.context_length


def test_what_gguf_has_no_words_for_is_refused(tmp_path: Path):
    folder = write_tiny_folder(tmp_path / "plain")
    source = open_checkpoint(str(folder), tmp_path)
    with pytest.raises(Invalid, match=r"is named \*.gguf, but out is 'small'"):
        write_checkpoint(tmp_path / "small", source)
    (tmp_path / "taken.gguf").write_bytes(b"")
    with pytest.raises(Invalid, match="a new checkpoint needs"):
        write_checkpoint(tmp_path / "taken.gguf", source)
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": "a+"}
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(Invalid, match="must cut text as one of"):
        write_checkpoint(tmp_path / "a.gguf", open_checkpoint(str(folder), tmp_path))
    assert not (tmp_path / "a.gguf").exists()
