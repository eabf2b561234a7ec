"""The least that a proxy in FastAPI does: bytes in, bytes out, through httpx. Usage: bare_proxy.py PORT UPSTREAM_URL"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

app = FastAPI()
upstream = httpx.AsyncClient(
    timeout=60, limits=httpx.Limits(max_connections=1000, max_keepalive_connections=500), trust_env=False
)


@app.get("/v1/models")
async def models() -> Response:
    return Response((await upstream.get(f"{sys.argv[2]}/models")).content, media_type="application/json")


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    body = await request.body()
    url = f"{sys.argv[2]}/chat/completions"
    if not json.loads(body).get("stream"):
        return Response((await upstream.post(url, content=body)).content, media_type="application/json")
    answer = await upstream.send(upstream.build_request("POST", url, content=body), stream=True)

    async def play() -> AsyncIterator[bytes]:
        async for piece in answer.aiter_raw():
            yield piece
        await answer.aclose()

    return StreamingResponse(play(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
