"""Take the command line that you serve with today: it becomes a profile, and its flags can be changed and tuned."""

import shlex
import sys

import temper
from temper.profile import command_line, store
from temper.profile.walk import tunable_fields

line = "VLLM_CPU_KVCACHE_SPACE=4 vllm serve Qwen/Qwen3-8B --max-num-seqs 64 --gpu-memory-utilization=0.90 --foo bar"
found = temper.import_command(line)
print("understood:", dict(found.flags))
print("kept as they stand:", *found.kept)
print("unchanged:", command_line.shell_line(found.profile.engine) == line)
print("a study can vary:", *[field.path for field in tunable_fields(found.profile)][:3], "…")

tuned = store.override(found.profile, {"flags.max_num_seqs": 128, "flags.block_size": 32})
print("tuned:", shlex.join(command_line.render(tuned.engine)))

# Any server with OpenAI's API can be launched; this one is ours. `temper serve mine.toml` does the same over HTTP.
profile = store.validate(
    {
        "engine": {
            "kind": "process",
            "command": [sys.executable, "-m", "temper.cli", "serve", *sys.argv[1:2], "--port", "{port}"],
            "ready_path": "/ready",
            "pass_environment": ["PYTHONPATH"],
        }
    }
)
with temper.load(profile) as model:
    print("answer:", model.chat("Say hello.", max_tokens=16).text)
    print("log:", model.stats.details["log_file"])
