"""Recipes: read, changed, and refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from temper.errors import Invalid, NotFound
from temper.refine.recipes import make_recipe, read_recipe
from temper.refine.train.recipe import TrainRecipe

GOOD = {"out": "run", "data": {"train": ["a.jsonl"]}}


def test_a_recipe_is_read_and_changed(tmp_path: Path):
    path = tmp_path / "recipe.toml"
    path.write_text('out = "run"\n[data]\ntrain = ["a.jsonl"]\n[schedule]\nepochs = 3\nshape = "linear"\n')
    recipe = read_recipe(TrainRecipe, path, ["learning_rate=3e-4", "schedule.epochs=5", "shape=null", "seed=7"])
    assert (recipe.optimizer.learning_rate, recipe.schedule.epochs, recipe.seed) == (3e-4, 5, 7)
    assert recipe.data.train == ("a.jsonl",)
    assert recipe.schedule.shape == "cosine", "null takes a field out of the file: its default holds"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["lerning_rate=1"], "unknown field 'lerning_rate'; did you mean 'optimizer.learning_rate'"),
        (["optimizer.lr=1"], "unknown field 'optimizer.lr'; .*learning_rate"),
        (["batch_size"], "written key=value, but is 'batch_size'"),
        (["batch.size=3"], "unknown field 'batch.size'; known: batch_size, "),
        (["every=3"], "could be evaluation.every or saving.every"),
        (["learning_rate=0"], "optimizer.learning_rate must be a number, above 0, at most 1, but is 0.*default is"),
        (["learning_rate=fast"], "but is 'fast'"),
        (["shape=cosin"], "one of 'cosine', 'linear', 'constant', but is 'cosin'"),
        (["micro_batch=5"], "5 times 1 does not divide 32"),
        (["epochs=2", "steps=3"], "both are given"),
        (["validation_share=0.7"], "at most 0.5, but is 0.7"),
        (["validation_share=0.1", 'data.validation=["b"]'], "both hold examples out"),
        (["train=[]"], "data.train must be a list"),
        (["precision=fp16"], "'bf16', 'fp32', but is 'fp16'"),
        (["threads=0"], "threads must be"),
        (["seed=-1"], "at least 0, below 2147483648, but is -1"),
        (["warmup_steps=many"], "or 'auto', but is 'many'"),
        (["batch=3"], "batch must be a table of fields, but is 3"),
        (["regularization.dropout=1"], "below 1, but is 1"),
        (["out="], "out"),
    ],
)
def test_what_breaks_the_schema_is_said(changes, said):
    with pytest.raises(Invalid, match=said):
        make_recipe(TrainRecipe, GOOD, changes)


def test_a_file_that_is_no_recipe(tmp_path: Path):
    with pytest.raises(NotFound, match="no recipe"):
        read_recipe(TrainRecipe, tmp_path / "none.toml")
    path = tmp_path / "recipe.toml"
    for content, said in ((b"out = ", "no TOML"), (b"\xff\xfe", "UTF-8"), (b'out = "run"', "data must be given")):
        path.write_bytes(content)
        with pytest.raises(Invalid, match=said):
            read_recipe(TrainRecipe, path)
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(Invalid, match="bytes at most"):
        read_recipe(TrainRecipe, path)
