"""Checkpoints whole: the default model against transformers, tensors checked, manifests that stand for content."""

from __future__ import annotations

import json
import shutil
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from temper.errors import CheckpointError, MalformedFile
from temper.models.checkpoint import Checkpoint, open_checkpoint
from temper.types import Message
from tests.models.reference_forward import reference_logits
from tests.tiny_models import tiny_config, tiny_weights, write_safetensors, write_tiny_folder, write_tiny_gguf


def test_the_default_model_is_that_of_transformers(default_checkpoint: Checkpoint) -> None:
    torch = pytest.importorskip("torch", reason="comparing with transformers needs the torch extra")
    transformers = pytest.importorskip("transformers")
    path = default_checkpoint.fetched.path
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    ).eval()
    ids = default_checkpoint.tokenizer.encode("<|im_start|>user\nSay hi in 3 words")  # few: numpy takes its time
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(reference_logits(default_checkpoint, ids), expected, rtol=1e-3, atol=1e-3)


def test_the_default_model(default_checkpoint: Checkpoint) -> None:
    assert default_checkpoint.config.tied_embeddings
    assert dict(default_checkpoint.generation) == {"temperature": 0.2, "top_p": 0.9}
    assert default_checkpoint.manifest.formats == {"q8_0": 1, "q4_1": 210, "f32": 62}
    assert default_checkpoint.manifest.files[0].sha256.startswith("b179c952")
    with pytest.raises(FrozenInstanceError):
        default_checkpoint.source = "other"  # type: ignore[misc]


def test_vectors_arrive_as_float32(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "m", "qwen2", dtype="bf16")
    checkpoint = open_checkpoint(str(folder), tmp_path)
    exact = tiny_weights(tiny_config("qwen2"))
    for name, tensor in checkpoint.tensors.items():
        if len(tensor.shape) == 1 and name in exact:
            assert tensor.format == "f32"
            np.testing.assert_allclose(tensor.data.view("<f4"), exact[name], rtol=2**-8)


def test_the_small_files_of_a_folder(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "m", "qwen3")
    checkpoint = open_checkpoint(str(folder), tmp_path)
    assert dict(checkpoint.generation) == {"temperature": 0.6, "top_p": 0.95}
    assert [checkpoint.tokenizer.token_text(i) for i in checkpoint.tokenizer.eos_ids] == ["<|im_end|>"]
    assert checkpoint.tokenizer.think_ids is not None
    assert (
        checkpoint.template.render((Message("user", "x"),)) == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    )
    (folder / "chat_template.jinja").write_text("{{ bos_token }}!")
    assert open_checkpoint(str(folder), tmp_path).template.render(()) == "<|im_start|>!"


@pytest.mark.parametrize("wanted", [True, False])
def test_add_bos_token_overrules_the_tokenizer_file(tmp_path: Path, wanted: bool) -> None:
    folder = write_tiny_folder(tmp_path / "m")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "add_bos_token": wanted}))
    tokenizer = open_checkpoint(str(folder), tmp_path).tokenizer
    assert (tokenizer.encode("and")[0] == tokenizer.bos_id) == wanted
    assert tokenizer.encode("and", add_special_tokens=False)[0] != tokenizer.bos_id


def test_a_manifest_stands_for_content(tmp_path: Path) -> None:
    first, second = write_tiny_gguf(tmp_path / "a.gguf"), write_tiny_gguf(tmp_path / "b.gguf")
    other = write_tiny_gguf(tmp_path / "c.gguf", seed=1)
    hashes = [open_checkpoint(str(path), tmp_path).manifest_hash() for path in (first, second, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    shutil.copy(other, first)
    assert open_checkpoint(str(first), tmp_path).manifest_hash() == hashes[2]
    folder = write_tiny_folder(tmp_path / "m")
    before = open_checkpoint(str(folder), tmp_path).manifest_hash()
    (folder / "chat_template.jinja").write_text("changed")
    assert open_checkpoint(str(folder), tmp_path).manifest_hash() != before
    assert json.loads(open_checkpoint(str(folder), tmp_path).manifest.to_json())["schema"] == "temper.manifest/1"


def rewritten(folder: Path, change: Any) -> Path:
    weights = tiny_weights(tiny_config("llama"))
    change(weights)
    write_safetensors(folder / "model.safetensors", weights)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.norm.weight"), r"'model\.norm\.weight' \[96\] is missing"),
        (
            lambda w: w.update({"model.layers.1.mlp.up_proj.weight": np.zeros((160, 95), np.float32)}),
            r"'model\.layers\.1\.mlp\.up_proj\.weight' must have shape \[160, 96\] by the config, found \[160, 95\]",
        ),
        (
            lambda w: w.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(96, np.float32)}),
            r"nothing reads the tensor 'model\.layers\.0\.self_attn\.q_proj\.bias'",
        ),
    ],
)
def test_tensors_that_do_not_fit_the_config(tmp_path: Path, change: Any, message: str) -> None:
    folder = rewritten(write_tiny_folder(tmp_path / "m"), change)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder), tmp_path)


def test_buffers_of_old_exports_and_copies_of_tied_heads_are_left_out(tmp_path: Path) -> None:
    def change(weights: dict[str, Any]) -> None:
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8, np.float32)

    folder = rewritten(write_tiny_folder(tmp_path / "m", tie_word_embeddings=True), change)
    assert "lm_head.weight" not in open_checkpoint(str(folder), tmp_path).tensors


def test_frequency_factors_of_a_gguf(tmp_path: Path) -> None:
    """Converters write llama3's scaling as one divisor per pair."""
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    plain = write_tiny_gguf(tmp_path / "plain.gguf")
    path = tmp_path / "scaled.gguf"
    reader, writer = gguf.GGUFReader(plain), gguf.GGUFWriter(str(path), "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.add_tensor("rope_freqs.weight", factors)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    found, before = (open_checkpoint(str(p), tmp_path).tensors["rope.inv_freq"].data.view("<f4") for p in (path, plain))
    np.testing.assert_allclose(found * factors, before, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("config.json", "{", "config.json must be JSON"),
        ("config.json", "[]", "config.json must be a JSON object, got list"),
        ("config.json", "[" * 100_000, "config.json must be JSON"),
        ("tokenizer.json", "{}", "tokenizer.json cannot be read"),
        ("tokenizer_config.json", "7", "tokenizer_config.json must be a JSON object"),
        ("generation_config.json", '{"eos_token_id": [9999]}', "'eos_token_id' must be a token id below 320"),
    ],
)
def test_broken_small_files(tmp_path: Path, name: str, raw: str, message: str) -> None:
    folder = write_tiny_folder(tmp_path / "m")
    (folder / name).write_text(raw)
    with pytest.raises(MalformedFile, match=message.replace(".", r"\.")):
        open_checkpoint(str(folder), tmp_path)


def test_folders_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        open_checkpoint(str(tmp_path / "empty"), tmp_path)
    write_tiny_gguf(tmp_path / "empty" / "one.gguf")
    assert open_checkpoint(str(tmp_path / "empty"), tmp_path).config.num_layers == 3
    write_tiny_gguf(tmp_path / "empty" / "two.gguf")
    with pytest.raises(CheckpointError, match=r"holds 2 GGUF files: one\.gguf, two\.gguf"):
        open_checkpoint(str(tmp_path / "empty"), tmp_path)
