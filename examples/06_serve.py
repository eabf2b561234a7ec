"""Serve a profile, and talk to it with the `openai` client. (`pip install openai`)"""

import json
import subprocess
import sys

from openai import OpenAI

profile = sys.argv[1] if len(sys.argv) > 1 else "default"
command = [sys.executable, "-m", "temper.cli", "serve", profile, "--port", "0", "--json"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    assert server.stdout is not None
    lines = []
    for line in server.stdout:  # with --json, one document says when and where the server is ready
        lines.append(line)
        if line == "}\n":
            break
    url = json.loads("".join(lines))["url"]
    try:
        client = OpenAI(base_url=f"{url}/v1", api_key="none")
        stream = client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"preset": "exact"},
        )
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="")
            elif chunk.usage:
                print(f"\n({chunk.usage.completion_tokens} tokens)")
    finally:
        server.terminate()
