"""`temper refine` on tiny models, whole: folders that open, what was lost, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from temper.cli.app import temper
from tests.tiny_models import write_tiny_folder


def run(*words: str, home: Path):
    return CliRunner().invoke(temper, ["refine", *words, "--home", str(home)], standalone_mode=False)


def test_a_smaller_checkpoint_and_what_it_lost(tmp_path: Path):
    source, out = write_tiny_folder(tmp_path / "plain"), tmp_path / "small"
    text = tmp_path / "text.txt"
    text.write_text("the and on " * 400)
    ran = run(
        "quantize", str(source), str(out), "--text", str(text), "--calibration-tokens", "512", "--bits", "8", "--json",
        home=tmp_path / "home",
    )  # fmt: skip
    document = json.loads(ran.stdout)
    assert document["schema"] == "temper.refine.quantize/1"
    assert document["step"]["settings"]["method"] == "gptq"
    assert document["step"]["data_sha256"]
    assert 0 < document["num_bytes"] < document["parent_bytes"]
    metrics = {name: metric for suite in document["measured"]["suites"] for name, metric in suite["metrics"].items()}
    assert 0 <= metrics["kl"]["value"] < 0.01
    plain = run(
        "quantize", str(source), str(tmp_path / "other"), "--method", "rtn", "--bits", "8", home=tmp_path / "home"
    )
    assert "kl " in plain.stdout
    assert "nats a position" in plain.stdout


def test_what_cannot_be_is_one_line_and_exit_code_2(tmp_path: Path):
    source = write_tiny_folder(tmp_path / "plain")
    ran = run("quantize", str(source), str(source), "--method", "rtn", home=tmp_path / "home")
    assert ran.return_value == 2
    assert "a new checkpoint needs a new folder" in ran.stderr


def test_a_recipe_and_an_adapter(tmp_path: Path):
    write_tiny_folder(tmp_path / "plain")
    turns = [{"role": "user", "content": "the one"}, {"role": "assistant", "content": "and the other"}]
    (tmp_path / "train.jsonl").write_text("\n".join([json.dumps({"messages": turns})] * 8))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "{tmp_path}/plain"\nout = "run"\n[data]\ntrain = ["train.jsonl"]\n')
    small = ("batch_size=2", "micro_batch=1", "packing=false", "context_length=64", "threads=1")
    ran = run("train", str(recipe), "epochs=1", *small, "--json", home=tmp_path / "home")
    document = json.loads(ran.stdout)
    assert document["schema"] == "temper.refine.train/1"
    assert document["outcome"]["num_steps"] == len(document["history"]) == 4
    assert Path(document["checkpoints"]["last"]) == tmp_path / "run" / "last"
    adapter = (str(tmp_path / "plain"), str(tmp_path / "train.jsonl"), str(tmp_path / "adapter"))
    ran = run("lora", *adapter, "--rank", "4", "--four-bit", *small, home=tmp_path / "home")
    assert "4 steps: loss" in ran.stdout
    assert "step 1: loss" in ran.stderr
    assert json.loads((tmp_path / "adapter" / "last" / "adapter_config.json").read_text())["r"] == 4
    ran = run("merge", f"{tmp_path}/adapter/last", str(tmp_path / "merged"), home=tmp_path / "home")
    assert f"{tmp_path}/plain with {tmp_path}/adapter/last in it" in ran.stdout
    ran = run("merge", str(tmp_path / "plain"), str(tmp_path / "merged"), "--json", home=tmp_path / "home")
    assert json.loads(ran.stdout)["error"]["code"] == "checkpoint_error"
    ran = run("train", str(recipe), "learningrate=1", home=tmp_path / "home")
    assert ran.return_value == 2
    assert "did you mean 'optimizer.learning_rate'?" in ran.stderr


def test_a_search_over_settings(tmp_path: Path):
    write_tiny_folder(tmp_path / "plain", num_hidden_layers=1)
    records = [{"role": "user", "content": "the"}], "one and on"
    lines = [{"messages": [*records[0], {"role": "assistant", "content": f"{records[1]} {n}"}]} for n in range(12)]
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'model = "{tmp_path}/plain"\nout = "tried"\n[data]\ntrain = ["train.jsonl"]\nvalidation_share = 0.3\n'
        "[batch]\nbatch_size = 2\nmicro_batch = 2\ncontext_length = 32\n[schedule]\nsteps = 2\n[compute]\nthreads = 1\n"
    )
    words = ("train", str(recipe), "--search", "3", "--over", "learning_rate,weight_decay", "--json")
    document = json.loads(run(*words, home=tmp_path / "home").stdout)
    assert document["over"] == ["optimizer.learning_rate", "optimizer.weight_decay"]
    losses = [trial["loss"] for trial in document["trials"]]
    assert len(set(losses)) == 3
    assert document["best"]["loss"] == min(losses)
    assert (Path(document["best"]["folder"]) / "best" / "config.json").is_file()
    (tmp_path / "train.jsonl").unlink()  # what is finished is not trained again
    assert json.loads(run(*words, home=tmp_path / "home").stdout)["trials"] == document["trials"]
    ran = run("train", str(recipe), "--search", "3", "--over", "seed", home=tmp_path / "home")
    assert "say their range, but not 'seed'" in ran.stderr
    ran = run("train", str(recipe), "validation_share=0", "--search", "3", home=tmp_path / "home")
    assert "held-out examples, but the recipe has none" in ran.stderr
