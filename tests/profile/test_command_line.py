"""Commands as people write them, read into a profile and written out again."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import Invalid, ProfileError
from temper.profile import store
from temper.profile.command_line import read_command, render, shell_line, split
from temper.profile.descriptions import description
from temper.profile.schema import NativeEngine, ProcessEngine, Profile
from temper.profile.servers import FLAGS
from temper.profile.servers.flags import flag_of, spellings
from temper.profile.walk import fields, tunable_fields

COMMANDS = [
    # line, server, model, flags, words kept
    ("vllm serve Qwen/Qwen3-8B --max-num-seqs 64", "vllm", "Qwen/Qwen3-8B", {"max_num_seqs": 64}, ""),
    ("vllm serve meta-llama/Llama-3.1-8B-Instruct --tensor-parallel-size 4 --gpu-memory-utilization 0.95 "
     "--max-model-len 32768", "vllm", "meta-llama/Llama-3.1-8B-Instruct",
     {"tensor_parallel_size": 4, "gpu_memory_utilization": 0.95, "max_model_len": 32768}, ""),
    ("vllm serve deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --reasoning-parser deepseek_r1 --max-model-len=16k",
     "vllm", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", {"max_model_len": 16000},
     "--reasoning-parser deepseek_r1"),
    ("vllm serve m --max-model-len 16K --kv-cache-memory-bytes 4G", "vllm", "m",
     {"max_model_len": 16384, "kv_cache_memory_bytes": 4 << 30}, ""),
    ("python -m vllm.entrypoints.openai.api_server --model facebook/opt-125m --dtype half --port 8001 --host 0.0.0.0",
     "vllm", "facebook/opt-125m", {"dtype": "half"}, ""),
    ("VLLM_CPU_KVCACHE_SPACE=4 VLLM_CPU_OMP_THREADS_BIND=0-1 vllm serve m --dtype bfloat16", "vllm", "m",
     {"dtype": "bfloat16"}, ""),
    ("CUDA_VISIBLE_DEVICES=0,1 /opt/venv/bin/python3.11 -m vllm.entrypoints.openai.api_server --model m -tp 2",
     "vllm", "m", {"tensor_parallel_size": 2}, ""),
    ("vllm serve m --enable-prefix-caching --no-enable-chunked-prefill --enforce-eager", "vllm", "m",
     {"enable_prefix_caching": True, "enable_chunked_prefill": False, "enforce_eager": True}, ""),
    ("""vllm serve m --speculative-config '{"method": "ngram", "num_speculative_tokens": 5}' --trust-remote-code""",
     "vllm", "m", {},
     """--speculative-config '{"method": "ngram", "num_speculative_tokens": 5}' --trust-remote-code"""),
    ("vllm serve m --chat-template '{% for x in messages %}{{ x }}{{port}}{% endfor %}'", "vllm", "m", {},
     "--chat-template '{% for x in messages %}{{ x }}{{port}}{% endfor %}'"),
    ("vllm serve m --max_num_batched_tokens 8192 --block_size=32", "vllm", "m",
     {"max_num_batched_tokens": 8192, "block_size": 32}, ""),
    ("vllm serve --max-num-seqs 32 Qwen/Qwen3-8B", "vllm", "Qwen/Qwen3-8B", {"max_num_seqs": 32}, ""),
    ("vllm serve m --enable-auto-tool-choice --tool-call-parser hermes --served-model-name a b -dp 2", "vllm", "m",
     {"data_parallel_size": 2}, "--enable-auto-tool-choice --tool-call-parser hermes --served-model-name a b"),
    ("nohup vllm serve m --quantization awq -O3 --compilation-config.mode 3", "vllm", "m", {"quantization": "awq"},
     "-O3 --compilation-config.mode 3"),
    ("vllm serve m \\\n  --max-num-seqs 16 \\\n  --seed 7", "vllm", "m", {"max_num_seqs": 16, "seed": 7}, ""),
    ("$ uv run vllm serve m --scheduling-policy priority", "vllm", "m", {"scheduling_policy": "priority"}, ""),
    ("vllm serve m --max-num-seqs 16 --max-num-seqs 32", "vllm", "m", {"max_num_seqs": 32}, "--max-num-seqs 16"),
    ("vllm serve m --gpu-memory-utilization 1.7 --max-model-len auto", "vllm", "m", {},
     "--gpu-memory-utilization 1.7 --max-model-len auto"),
    ("python3 -m sglang.launch_server --model-path meta-llama/Meta-Llama-3-8B-Instruct --tp 2 --port 30000", "sglang",
     "meta-llama/Meta-Llama-3-8B-Instruct", {"tp_size": 2}, ""),
    ("python -m sglang.launch_server --model-path m --mem-fraction-static 0.7 --chunked-prefill-size 4096", "sglang",
     "m", {"mem_fraction_static": 0.7, "chunked_prefill_size": 4096}, ""),
    ("python -m sglang.launch_server --model m --disable-radix-cache --schedule-policy lpm --chunked-prefill-size -1",
     "sglang", "m", {"disable_radix_cache": True, "schedule_policy": "lpm", "chunked_prefill_size": -1}, ""),
    ("python -m sglang.launch_server --model-path m --speculative-algorithm EAGLE --speculative-num-steps 3 "
     "--speculative-eagle-topk 4 --speculative-num-draft-tokens 16 --speculative-draft-model-path d", "sglang", "m",
     {"speculative_algorithm": "EAGLE", "speculative_num_steps": 3, "speculative_eagle_topk": 4,
      "speculative_num_draft_tokens": 16}, "--speculative-draft-model-path d"),
    ("SGLANG_USE_CPU_ENGINE=1 python -m sglang.launch_server --model m --device cpu --max-running-requests 32",
     "sglang", "m", {"max_running_requests": 32}, "--device cpu"),
    ("sglang serve --model-path m --dtype=bfloat16 --kv-cache-dtype fp8_e5m2", "sglang", "m",
     {"dtype": "bfloat16", "kv_cache_dtype": "fp8_e5m2"}, ""),
    ("llama-server -m model.gguf -c 8192 -np 4 -t 8 --port 8080", "llama-server", "model.gguf",
     {"ctx_size": 8192, "parallel": 4, "threads": 8}, ""),
    ("./build/bin/llama-server -hf ggml-org/gemma-3-4b-it-GGUF -ngl 99 -fa on", "llama-server", None,
     {"n_gpu_layers": 99, "flash_attn": "on"}, "-hf ggml-org/gemma-3-4b-it-GGUF"),
    ("llama-server --model 'my models/a b.gguf' -ctk q8_0 -ctv q8_0 -fa --jinja", "llama-server", "my models/a b.gguf",
     {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, "-fa --jinja"),
    ("numactl --cpunodebind=0 --membind=0 llama-server -m a.gguf -nocb -ub 256 -b 1024 -tb 16", "llama-server",
     "a.gguf", {"cont_batching": False, "ubatch_size": 256, "batch_size": 1024, "threads_batch": 16}, ""),
    ("taskset -c 0-3 llama-server -m a.gguf --reasoning-budget 512 --no-webui -ngl all", "llama-server", "a.gguf",
     {"reasoning_budget": 512, "n_gpu_layers": "all"}, "--no-webui"),
    ("LLAMA_ARG_THREADS=2 llama-server -m a.gguf --spec-type ngram-simple --spec-draft-n-max 8 --cache-reuse 256",
     "llama-server", "a.gguf", {"spec_type": "ngram-simple", "spec_draft_n_max": 8, "cache_reuse": 256}, ""),
    ("env OMP_NUM_THREADS=4 llama-server -m a.gguf --no-kv-unified --host 0.0.0.0", "llama-server", "a.gguf",
     {"kv_unified": False}, ""),
]  # fmt: skip


def argv_of(line: str) -> list[str]:
    """What a shell would start, variables taken off."""
    words = split(line)
    while "=" in words[0]:
        words.pop(0)
    return words


@pytest.mark.parametrize(("line", "server", "model", "flags", "kept"), COMMANDS, ids=lambda value: str(value)[:40])
def test_commands_of_the_world(line, server, model, flags, kept):
    found = read_command(line)
    section = found.section
    assert (section.server, section.model, section.flags.model_dump()) == (server, model, flags)
    assert list(found.kept) == shlex.split(kept)
    assert render(section) == argv_of(line)
    read_back = store.parse(store.dumps(Profile(engine=section), only_changes=True)).engine
    assert read_back == section
    assert split(shell_line(section)) == split(line)
    launched = render(section, port=4321, host="127.0.0.1")
    assert "4321" in launched
    assert "127.0.0.1" in launched
    assert "0.0.0.0" not in launched


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "must hold a command"),
        ("A=1 B=2", "no command behind the variables"),
        ("vllm serve 'm", "quote"),
        ("vllm serve m && echo up", "asks for a shell"),
        ("vllm serve m | tee log", "asks for a shell"),
        ("vllm serve m > log 2>&1", "asks for a shell"),
        ("vllm serve $MODEL", "asks for a shell"),
        ('vllm serve "${MODEL}"', "asks for a shell"),
        ("vllm serve `cat model`", "asks for a shell"),
        ("docker run --gpus all vllm/vllm-openai --model m", "behind 'docker'"),
        ("ssh host vllm serve m", "behind 'ssh'"),
        ("sudo vllm serve m", "behind 'sudo'"),
        ("vllm chat", "starts no server that is known"),
        ("python serve.py", "starts no server that is known"),
        ("bash -c vllm serve m", "'bash' before a server is not understood"),
        ("vllm serve m --api-key a b", "one key"),
        ("env HF_TOKEN=hf_secret vllm serve m", "must not get into a profile"),
        ("vllm serve m --ssl-keyfile=k", "plain HTTP"),
        ("llama-server -m a --api-key-file keys", "would not know the key"),
        ("llama-server -m a --hf-token hf_secret", "set HF_TOKEN in the environment"),
    ],
)
def test_what_cannot_be_imported_is_explained(line, says):
    with pytest.raises(Invalid) as caught:
        read_command(line)
    assert says in str(caught.value)
    assert "hf_secret" not in str(caught.value)
    assert caught.value.param == "command"


def test_secrets_stay_out_of_the_profile():
    found = read_command("HF_TOKEN=hf_abc OMP_NUM_THREADS=2 vllm serve m --api-key sk-123")
    assert found.section.pass_environment == ("HF_TOKEN",)
    assert found.section.environment == {"OMP_NUM_THREADS": "2"}
    assert "hf_abc" not in repr(found)
    assert "sk-123" not in repr(found)
    assert len(found.notes) == 2
    assert render(found.section, api_key="sk-123") == ["vllm", "serve", "m", "--api-key", "sk-123"]


def test_the_home_folder_is_where_a_shell_would_expand_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a b")
    assert split("llama-server -m ~/x.gguf '~/y' \"~/z\" a~/b --c=~/d ~") == [
        "llama-server", "-m", "/home/a b/x.gguf", "~/y", "~/z", "a~/b", "--c=~/d", "/home/a b",
    ]  # fmt: skip


def test_flags_without_a_server_are_explained():
    text = '[engine]\nkind = "process"\ncommand = ["x"]\n[engine.flags]\nmax_num_seqs = 4\n'
    with pytest.raises(ProfileError, match="say which one 'server' is"):
        store.parse(text)


def test_profiles_with_variables_can_be_keys():
    first, second = (Profile(engine=read_command(f"A=1 vllm serve {model}").section) for model in ("m", "n"))
    assert {first: 1, second: 2}[first] == 1


def changed(line: str, **flags) -> str:
    profile = Profile(engine=read_command(line).section)
    tuned = store.override(profile, {f"engine.flags.{name}": value for name, value in flags.items()})
    assert isinstance(tuned.engine, ProcessEngine)
    return shlex.join(render(tuned.engine))


def test_a_tuned_flag_changes_in_its_place():
    line = "vllm serve m --max-num-seqs 64 --foo --gpu-memory-utilization=0.90"
    assert changed(line, max_num_seqs=128) == "vllm serve m --max-num-seqs 128 --foo --gpu-memory-utilization=0.90"
    assert changed(line, gpu_memory_utilization=0.85).endswith("--gpu-memory-utilization=0.85")
    assert changed(line, gpu_memory_utilization=0.9) == line


def test_a_new_flag_stands_at_the_end():
    assert changed("vllm serve m --foo", block_size=32) == "vllm serve m --foo --block-size 32"
    assert changed("vllm serve m", enable_prefix_caching=False) == "vllm serve m --no-enable-prefix-caching"
    assert changed("python -m sglang.launch_server --model-path m", disable_radix_cache=False).endswith(
        "--model-path m"
    )


def test_a_cleared_flag_leaves_with_its_option():
    line = "llama-server -m a.gguf -c 4096 --cache-prompt -t 4"
    assert changed(line, ctx_size=None) == "llama-server -m a.gguf --cache-prompt -t 4"
    assert changed(line, cache_prompt=None) == "llama-server -m a.gguf -c 4096 -t 4"
    assert changed(line, cache_prompt=False) == "llama-server -m a.gguf -c 4096 --no-cache-prompt -t 4"
    assert changed("vllm serve m --block-size=16 --foo", block_size=None) == "vllm serve m --foo"


def test_a_value_that_was_kept_is_replaced_where_it_stands():
    assert changed("vllm serve m --max-model-len auto --foo", max_model_len=4096) == (
        "vllm serve m --max-model-len 4096 --foo"
    )


def test_a_switch_keeps_its_spelling_while_it_means_the_same():
    assert changed("llama-server -m a -nocb", cont_batching=False) == "llama-server -m a -nocb"
    assert changed("llama-server -m a -nocb", cont_batching=True) == "llama-server -m a --cont-batching"


def test_options_of_what_stands_before_the_server_are_not_its_own():
    line = "taskset -c 0-3 llama-server -m a.gguf"
    assert changed(line, ctx_size=512) == "taskset -c 0-3 llama-server -m a.gguf --ctx-size 512"


@pytest.mark.parametrize(
    ("command", "says"),
    [(("x", "{prot}"), "did you mean {port}"), (("x", "{model}"), "give 'model' or 'checkpoint'")],
)
def test_placeholders_that_stand_for_nothing_are_explained(command, says):
    with pytest.raises(Invalid, match="stands for") as caught:
        render(ProcessEngine(command=command), port=1)
    assert says in str(caught.value)


# -- properties --------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
names = st.sampled_from(sorted({name for kind in FLAGS.values() for item in spellings(kind).values()
                                for name in (*item.names, *item.off)}))  # fmt: skip
pieces = st.one_of(
    words,
    names,
    st.builds("{}={}".format, names, words),
    st.sampled_from(["--port", "--host", "--model", "-m", "64", "0.90", "16k", "on", "{port}", "{{model}}", "-1", "x"]),
)
starts = st.sampled_from([("vllm", "serve"), ("vllm", "serve", "m"), ("a/llama-server",),
                          ("python", "-m", "sglang.launch_server")])  # fmt: skip


@given(starts, st.lists(pieces, max_size=12))
def test_what_is_imported_is_rendered_word_for_word(start, rest):
    section = read_command([*start, *rest]).section
    assert render(section) == [*start, *rest]
    assert store.parse(store.dumps(Profile(engine=section))).engine == section


@given(starts, st.lists(pieces, max_size=8))
def test_a_quoted_line_is_read_like_its_words(start, rest):
    argv = [*start, *rest]
    assert read_command(shlex.join(argv)).section == read_command(argv).section


@given(st.text(max_size=60))
def test_any_line_is_taken_or_refused(line):
    try:
        found = read_command(line)
    except Invalid as error:
        assert str(error)
    else:
        render(found.section, api_key="k")


# -- the schemas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FLAGS.values(), ids=lambda kind: kind.server)
def test_every_flag_has_one_meaning(kind):
    known = {field.path.removeprefix("engine.") for field in fields(Profile(engine=NativeEngine()))} | {"speculation"}
    spelled = [name for item in spellings(kind).values() for name in (*item.names, *item.off)]
    spelled += [*kind.port_names, *kind.host_names, *kind.key_names, *kind.model_names]
    assert len(spelled) == len(set(spelled))
    for name, info in kind.model_fields.items():
        assert info.default is None
        assert description(kind, name), name
        concept = flag_of(info).concept
        assert concept is None or concept in known, f"{name}: {concept}"


def test_the_tuner_sees_the_flags_of_the_server_at_hand():
    profile = Profile(engine=read_command("llama-server -m a.gguf -np 4").section)
    found = {field.path: field for field in tunable_fields(profile)}
    assert found["engine.flags.parallel"].tunable.high == 256
    assert "engine.flags.max_num_seqs" not in found
    assert all(field.tunable.restart for path, field in found.items() if path.startswith("engine.flags."))


def test_a_flag_of_another_server_is_refused_and_the_nearest_is_named():
    with pytest.raises(ProfileError, match=r"unknown field 'engine\.flags\.max_num_sqs'.*max_num_seqs"):
        store.override(Profile(engine=read_command("vllm serve m").section), {"engine.flags.max_num_sqs": 1})
    text = '[engine]\nkind = "process"\nserver = "sglang"\ncommand = ["x"]\n[engine.flags]\nmax_num_seqs = 4\n'
    with pytest.raises(ProfileError, match=r"unknown field 'engine\.flags\.max_num_seqs'"):
        store.parse(text)


def test_a_misspelled_flag_inside_a_tree_is_the_only_complaint():
    text = '[engine]\nkind = "balance"\n[[engine.children]]\nkind = "process"\nserver = "vllm"\ncommand = ["x"]\n'
    with pytest.raises(ProfileError) as caught:
        store.parse(text + "[engine.children.flags]\nmax_num_sqs = 4\n")
    assert str(caught.value) == (
        "profile: unknown field 'engine.children.0.flags.max_num_sqs'; "
        "did you mean 'engine.children.0.flags.max_num_seqs'?"
    )


def test_flags_that_are_not_given_are_no_part_of_the_version():
    section = read_command("vllm serve m --max-num-seqs 4").section
    assert '"flags":{"max_num_seqs":4}' in store.canonical_json(Profile(engine=section), {})
