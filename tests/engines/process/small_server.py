"""A server of another make for tests: OpenAI's API in a few lines, on the standard library, with faults by name.

    python small_server.py PORT [FAULT…]

A prompt may be a fault too: `crash` ends the process in the middle of the answer, `stop` stops it where it stands.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, FAULTS = int(sys.argv[1]), sys.argv[2:]
KEY = next((fault.removeprefix("key=") for fault in FAULTS if fault.startswith("key=")), None)
KEY = KEY or os.environ.get("VLLM_API_KEY")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(503 if "never" in FAULTS else 200, {})
        elif KEY is not None and self.headers.get("authorization") != f"Bearer {KEY}":
            self.answer(401, {"error": {"message": "wrong key"}})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "small", "owned_by": "somebody"}]})
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = asked.get("prompt")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        for index in range(4):
            if index == 2 and prompt == "crash":
                print("something went very wrong", flush=True)
                os._exit(3)
            if index == 2 and prompt == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(0.5)  # another thread may take the signal: until it has
            self.piece({"choices": [{"index": 0, "text": f" {index}", "finish_reason": None}]})
        self.piece({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
        self.piece({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 4}})
        self.wfile.write(b"data: [DONE]\n\n")

    def piece(self, body: object) -> None:
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
        self.wfile.flush()


def main() -> None:
    if "dies" in FAULTS:
        print("loading the model\n\x1b[31mno such weights\x1b[0m", flush=True)
        sys.exit(3)
    if "garbage" in FAULTS:
        sys.stdout.buffer.write(bytes(range(256)) * 4000 + b"\n\xff\xfe\n")
        sys.stdout.flush()
    if "slow" in FAULTS:
        time.sleep(0.7)
    if "child" in FAULTS:
        print("child", subprocess.Popen(["sleep", "600"]).pid, flush=True)
    if "environment" in FAULTS:
        print(json.dumps(sorted(os.environ)), flush=True)
    if "stubborn" in FAULTS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for fault in FAULTS:
        if fault.startswith("once="):  # dies on every start but the first
            path = fault.removeprefix("once=")
            if os.path.exists(path):
                print("cannot start twice", flush=True)
                sys.exit(4)
            open(path, "w").close()
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()


main()
