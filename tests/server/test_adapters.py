"""Adapters over HTTP: who may load them, how requests choose one, and a whole model with two of them in one batch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

from temper.engines.base import Engine
from temper.engines.context import Context
from temper.engines.native.load import load_engine
from temper.engines.native.remote import WorkerEngine
from temper.engines.swap import Swappable
from temper.profile.schema import BatchingConfig, ComputeConfig, KvConfig, NativeEngine, Profile
from temper.server import ServerSettings
from tests.engines.native.adapting import adapting_engine, write
from tests.engines.native.test_remote import until
from tests.server.conftest import Running, fake, running
from tests.tiny_models import tiny_config, tiny_weights, write_safetensors, write_tiny_adapter, write_tiny_folder

ADMIN = {"authorization": "Bearer admin-secret"}
USER = {"authorization": "Bearer user-secret"}
SETTINGS = ServerSettings(api_keys=("user-secret",), admin_keys=("admin-secret",))
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


async def post(server: Running, path: str, body: object, headers: dict[str, str] = ADMIN) -> tuple[int, dict[str, Any]]:
    async with server.http as http:
        answer = await http.post(path, json=body, headers=headers)
    return answer.status_code, answer.json()


async def say(server: Running, model: str, prompt: str = "Once upon a time", tokens: int = 12) -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    status, answer = await post(server, "/v1/completions", body, USER)
    assert status == 200, answer
    assert answer["model"] == model
    text: str = answer["choices"][0]["text"]
    return text


def running_with(server: Running, adapter: str) -> int:
    """Requests that have the adapter now."""
    count: int = server.state.engines["base"].stats().details["adapters"]["loaded"][adapter]["running"]
    return count


async def models(server: Running) -> dict[str, str | None]:
    async with server.http as http:
        answer = await http.get("/v1/models", headers=USER)
    return {entry["id"]: entry["parent"] for entry in answer.json()["data"]}


@pytest.fixture
async def adapting() -> AsyncIterator[Running]:
    engine, _ = adapting_engine(step_s=0.001, num_blocks=256, context_length=1024)
    async with running({"base": engine, "other": fake()}, SETTINGS) as found:
        yield found


async def test_adapters_come_and_go_as_models(adapting: Running, tmp_path: Path):
    assert await models(adapting) == {"base": None, "other": None}
    one = write(tmp_path / "one", "one")
    assert await post(adapting, LOAD, {"lora_name": "one", "lora_path": one}) == (
        200,
        {"loaded": "one", "parent": "base"},
    )
    assert await models(adapting) == {"base": None, "one": "base", "other": None}
    first = await say(adapting, "one")
    assert first != await say(adapting, "base")
    status, told = await post(adapting, LOAD, {"lora_name": "one", "lora_path": write(tmp_path / "two", "two")})
    assert (status, told["error"]["param"]) == (400, "lora_name")
    body = {"lora_name": "one", "lora_path": str(tmp_path / "two"), "load_inplace": True, "model": "base"}
    assert (await post(adapting, LOAD, body))[0] == 200
    assert await say(adapting, "one") != first
    assert await post(adapting, UNLOAD, {"lora_name": "one"}) == (200, {"unloaded": "one", "parent": "base"})
    assert await models(adapting) == {"base": None, "other": None}
    status, told = await post(adapting, "/v1/completions", {"model": "one", "prompt": "x"}, USER)
    assert (status, told["error"]["code"]) == (404, "model_not_found")


async def test_only_an_operator_may_change_them(adapting: Running, tmp_path: Path):
    body = {"lora_name": "one", "lora_path": write(tmp_path / "one", "one")}
    for path in (LOAD, UNLOAD):
        assert (await post(adapting, path, body, USER))[0] == 401
        assert (await post(adapting, path, body, {}))[0] == 401
    engine, _ = adapting_engine()
    async with running(engine, ServerSettings()) as open_server:
        status, told = await post(open_server, LOAD, body)
        assert (status, "admin key" in told["error"]["message"]) == (403, True)


async def test_what_cannot_be_loaded_is_refused_with_the_reason(adapting: Running, tmp_path: Path):
    one, broken = write(tmp_path / "one", "one"), write(tmp_path / "broken", "broken")
    wanted: tuple[tuple[str, dict[str, Any], int, str], ...] = (
        (LOAD, {"lora_name": "x", "lora_path": broken}, 400, "lora_path"),
        (LOAD, {"lora_name": "x", "lora_path": str(tmp_path / "nowhere")}, 404, "lora_path"),
        (LOAD, {"lora_name": "other", "lora_path": one}, 400, "lora_name"),
        (LOAD, {"lora_name": "x", "lora_path": one, "model": "other"}, 400, "lora_name"),
        (LOAD, {"lora_name": "x", "lora_path": one, "model": "nobody"}, 404, "model"),
        (LOAD, {"lora_name": "x"}, 400, "lora_path"),
        (LOAD, {"lora_name": "", "lora_path": one}, 400, "lora_name"),
        (LOAD, {"lora_name": "x", "lora_path": one, "lora_int_id": 1}, 400, "lora_int_id"),
        (UNLOAD, {"lora_name": "nobody"}, 404, "lora_name"),
        (UNLOAD, {"lora_name": "base"}, 404, "lora_name"),
    )
    for path, body, status, param in wanted:
        found, told = await post(adapting, path, body)
        assert (found, told["error"]["param"]) == (status, param), (body, told)
    assert (await post(adapting, LOAD, {"lora_name": "one", "lora_path": one}))[0] == 200
    found, told = await post(adapting, LOAD, {"lora_name": "x", "lora_path": one, "model": "one"})
    assert (found, told["error"]["param"]) == (400, "model")
    assert await models(adapting) == {"base": None, "one": "base", "other": None}


async def test_a_stream_is_not_cut_by_unloading_its_adapter(adapting: Running, tmp_path: Path):
    await post(adapting, LOAD, {"lora_name": "one", "lora_path": write(tmp_path / "one", "one")})
    expected = await say(adapting, "one", tokens=80)
    stream = asyncio.create_task(say(adapting, "one", tokens=80))
    await until(lambda: running_with(adapting, "one") == 1)
    assert (await post(adapting, UNLOAD, {"lora_name": "one"}))[0] == 200
    assert stream.done() or (await stream) == expected
    assert await stream == expected


async def test_a_new_tree_gets_the_adapters_too(tmp_path: Path):
    async def make(profile: Profile) -> Engine:
        return adapting_engine(context_length=600)[0]

    engine, _ = adapting_engine()
    async with running(Swappable(Profile(), engine, make), SETTINGS) as server:
        await post(server, LOAD, {"lora_name": "one", "lora_path": write(tmp_path / "one", "one")})
        said = await say(server, "one")
        changed = {"profile": {"engine": {"kind": "native", "batching": {"context_length": 600}}}}
        status, told = await post(server, "/admin/profile", changed)
        assert (status, told["changed"]) == (200, "swapped")
        assert await say(server, "one") == said
        assert (await models(server))["one"] == "fake"


# -- a whole model ---------------------------------------------------------------------------------


def merged(base: Path, adapter: Path, folder: Path) -> Path:
    """The base model with the adapter in its weights."""
    write_tiny_folder(folder, "qwen2")
    weights = tiny_weights(tiny_config("qwen2"))
    config, found = (
        json.loads((adapter / "adapter_config.json").read_text()),
        load_file(adapter / "adapter_model.safetensors"),
    )
    for name, a in found.items():
        if "lora_A" in name:
            b = found[name.replace("lora_A", "lora_B")]
            weights[name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")] += (
                config["lora_alpha"] / config["r"] * (b @ a)
            )
    write_safetensors(folder / "model.safetensors", {name: np.asarray(w, np.float32) for name, w in weights.items()})
    return folder


def native(checkpoint: Path, place: Context, *, in_process: bool = True, **fields: Any) -> Engine:
    section = NativeEngine(
        checkpoint=str(checkpoint),
        kv=KvConfig(budget_bytes=16 << 20, dtype="f32"),
        batching=BatchingConfig(max_sequences=16, batch_invariant=True),
        compute=ComputeConfig(threads=2),
        **fields,
    )
    return load_engine(section, place) if in_process else WorkerEngine(section, place)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
async def test_two_adapters_and_the_base_answer_in_one_batch(tmp_path: Path, dtype: str):
    """Each stream gets the text of a model with the adapter merged, whoever is beside it and whatever is loaded."""
    pytest.importorskip("temper.kernels._native", reason="the native kernels are not built")
    place = Context(cache_dir=tmp_path, home=tmp_path)
    base = write_tiny_folder(tmp_path / "base", "qwen2")
    folders = {name: str(write_tiny_adapter(tmp_path / name, "qwen2", seed=i, dtype=dtype, size=0.3))
               for i, name in enumerate(("maths", "law"))}  # fmt: skip
    prompts = [f"{word} upon a time in a village by the sea there lived" for word in ("Once", "Twice", "Never")]
    expected: dict[str, list[str]] = {}
    if dtype == "f32":  # merging in bf16 rounds otherwise
        wholes = {name: merged(base, Path(folder), tmp_path / f"{name}-merged") for name, folder in folders.items()}
        async with running(
            {name: native(whole, place) for name, whole in {"base": base, **wholes}.items()}, SETTINGS
        ) as server:
            for name in ("base", *folders):
                expected[name] = [await say(server, name, prompt, 40) for prompt in prompts]
    async with running({"base": native(base, place, in_process=dtype == "f32", adapters=folders)}, SETTINGS) as server:
        assert await models(server) == {"base": None, "maths": "base", "law": "base"}
        for name in ("base", *folders):
            alone = [await say(server, name, prompt, 40) for prompt in prompts]
            assert expected.setdefault(name, alone) == alone
        assert len({tuple(texts) for texts in expected.values()}) == 3
        work = [(name, i) for i in range(3) for name in expected]
        changing = asyncio.create_task(churn(server, tmp_path))
        for _ in range(3):
            texts = await asyncio.gather(*(say(server, name, prompts[i], 40) for name, i in work))
            assert texts == [expected[name][i] for name, i in work]
        assert not changing.done(), changing.exception()
        changing.cancel()
        logprobs = {"model": "law", "prompt": prompts[0], "max_tokens": 0, "echo": True, "logprobs": 1}
        status, answer = await post(server, "/v1/completions", logprobs, USER)
        assert status == 200
        assert len(answer["choices"][0]["logprobs"]["token_logprobs"]) > 10


async def churn(server: Running, tmp_path: Path) -> None:
    """Load and unload for as long as it goes on."""
    folders = [str(write_tiny_adapter(tmp_path / f"hot{i}", "qwen2", seed=10 + i)) for i in range(2)]
    async with httpx.AsyncClient(base_url=server.url, timeout=30, headers=ADMIN) as http:
        while True:
            for folder in folders:
                body = {"lora_name": "hot", "lora_path": folder, "load_inplace": True}
                assert (await http.post(LOAD, json=body)).status_code == 200
            assert (await http.post(UNLOAD, json={"lora_name": "hot"})).status_code == 200
