"""A model without weights: what comes next is a hash of everything before, read through the paged cache.

So a wrong block, a wrong position or a lost token changes the text, and every way of computing the
same request must give the same text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from temper.engines.native.engine import NativeEngine
from temper.engines.native.prompts import Model
from temper.engines.native.scheduler import StepLimits
from temper.errors import CheckpointError, NotFound
from temper.kernels.executor import ExecutorSpec, SamplerParams, StepBatch, TokenLogprobs
from temper.kernels.reference import check_batch
from temper.profile.schema import BatchingConfig, KvConfig
from temper.profile.schema import NativeEngine as NativeSection
from temper.types import Delta, Done, Event, Failed, Finished, Limits, Request, Sampling, Stop

VOCAB = 384
EOS = 256
OPEN, CLOSE = 257, 258


@dataclass
class Slot:
    params: SamplerParams
    history: list[int]
    num_prompt: int


@dataclass
class FakeExecutor:
    """`script` maps a sequence's own generated tokens so far to the next one; None: the hash decides."""

    spec: ExecutorSpec
    script: Sequence[int] | None = None
    step_s: float = 0.0
    fail_at: int = -1
    slots: dict[int, Slot] = field(default_factory=dict)
    num_forwards: int = 0
    num_opened: int = 0
    check: bool = True

    def __post_init__(self) -> None:
        self.cache = np.full((self.spec.num_blocks, self.spec.block_tokens), -1, dtype=np.int32)
        self.row_hashes = np.zeros(0, dtype=np.uint32)
        self.widest = 0

    vocab_size = VOCAB

    @property
    def num_blocks(self) -> int:
        return self.spec.num_blocks

    @property
    def block_tokens(self) -> int:
        return self.spec.block_tokens

    @property
    def kv_block_bytes(self) -> int:
        return 1024

    def forward(self, batch: StepBatch) -> None:
        if self.step_s:
            time.sleep(self.step_s)
        self.num_forwards += 1
        if self.num_forwards == self.fail_at:
            raise RuntimeError("the fake was told to fail")
        if self.check:
            check_batch(batch, self.spec, VOCAB)
        self.widest = max(self.widest, len(batch.tokens))
        bt = self.spec.block_tokens
        rows = []
        wanted = set(batch.logit_rows.tolist())
        written: list[tuple[int, int]] = []
        for i in range(len(batch.context_lens)):
            begin, end, context = int(batch.q_starts[i]), int(batch.q_starts[i + 1]), int(batch.context_lens[i])
            for at in range(begin, end):
                place = (int(batch.block_tables[i, batch.positions[at] // bt]), int(batch.positions[at] % bt))
                written.append(place)
                self.cache[place] = batch.tokens[at]
            pages = batch.block_tables[i, : -(-context // bt)]
            seen = self.cache[pages].reshape(-1)
            assert (seen[:context] >= 0).all(), "a token was read that nobody wrote"
            rows += [crc32(seen[: batch.positions[at] + 1].tobytes()) for at in range(begin, end) if at in wanted]
        assert len(set(written)) == len(written), "two sequences wrote one place"
        self.row_hashes = np.array(rows, dtype=np.uint32)

    def logits(self) -> np.ndarray:
        found = np.zeros((len(self.row_hashes), VOCAB), dtype=np.float32)
        for row, seen in enumerate(self.row_hashes):
            found[row] = np.random.default_rng(int(seen)).normal(size=VOCAB)
        return found

    def open_slot(self, params: SamplerParams, prompt: np.ndarray) -> int:
        self.num_opened += 1
        self.slots[self.num_opened] = Slot(params, prompt.tolist(), len(prompt))
        return self.num_opened

    def close_slot(self, slot: int) -> None:
        del self.slots[slot]

    def sample(self, rows, slots, temperatures, forced) -> np.ndarray:
        tokens = np.empty(len(rows), dtype=np.int32)
        for i, slot_id in enumerate(slots.tolist()):
            slot = self.slots[slot_id]
            seen = int(self.row_hashes[rows[i]])
            assert crc32(np.array(slot.history, dtype=np.int32).tobytes()) == seen, "cache and history differ"
            at = len(slot.history) - slot.num_prompt
            if forced[i] >= 0:
                token = int(forced[i])
            elif self.script is not None:
                token = self.script[at] if at < len(self.script) else EOS
            elif temperatures[i] == 0:
                token = 97 + seen % 26
            else:
                token = 97 + crc32(f"{seen}/{slot.params.seed}/{slot.params.sample_index}/{at}".encode()) % 26
            slot.history.append(token)
            tokens[i] = token
        return tokens

    def logprobs(self, rows, tokens, top_k) -> TokenLogprobs:
        logits = self.logits()[rows]
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        ids = np.argsort(-logits, axis=1, kind="stable")[:, :top_k].astype(np.int32)
        at = np.arange(len(rows))
        return TokenLogprobs(logits[at, tokens], ids, np.take_along_axis(logits, ids, axis=1))


class ByteTokenizer:
    """One token a byte; 256 ends, 257 and 258 are the tags of thinking, the rest is nothing."""

    eos_ids = (EOS,)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        ids: list[int] = []
        while text:
            for tag, token in (("<think>", OPEN), ("</think>", CLOSE)):
                if text.startswith(tag):
                    ids.append(token)
                    text = text[len(tag) :]
                    break
            else:
                ids += text[0].encode()
                text = text[1:]
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        if token_id < 256:
            return bytes([token_id])
        return {OPEN: b"<think>", CLOSE: b"</think>"}.get(token_id, b"")

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")


class ByteDecoder:
    def __init__(self) -> None:
        import codecs

        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._tokenizer = ByteTokenizer()

    def push(self, ids: Sequence[int]) -> str:
        return self._utf8.decode(b"".join(map(self._tokenizer.token_bytes, ids)))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class FakeTemplate:
    """R1's habit: the thinking is opened in the prompt."""

    def __init__(self, thinks: bool) -> None:
        self.source = "<think>" if thinks else ""

    def render(self, messages, *, add_generation_prompt: bool = True, variables=None) -> str:
        text = "".join(f"[{m.role}]{m.content}" for m in messages)
        return text + "[assistant]" + ("<think>\n" if self.source else "")


def no_presets(name: str):
    raise NotFound(f"no preset '{name}'", param="preset")


def make_engine(
    *,
    num_blocks: int = 64,
    block_tokens: int = 16,
    context_length: int = 512,
    max_sequences: int = 8,
    max_step_tokens: int = 64,
    max_logit_rows: int = 24,
    prefix_cache: bool = True,
    thinks: bool = False,
    script: Sequence[int] | str | None = None,
    step_s: float = 0.0,
    fail_at: int = -1,
    check: bool = True,
    presets=no_presets,
    generation_defaults=None,
    executor_kind: type[FakeExecutor] = FakeExecutor,
    read_adapter=None,
    **sections: object,
) -> tuple[NativeEngine, FakeExecutor]:
    """An engine over a fake executor; `sections` are further parts of its profile section."""
    if isinstance(script, str):
        script = ByteTokenizer().encode(script)
    executor = executor_kind(
        ExecutorSpec(1, 8, num_blocks, block_tokens, "f16", max_step_tokens, max_logit_rows),
        script,
        step_s,
        fail_at,
        check=check,
    )
    section = NativeSection(
        kv=KvConfig(prefix_cache=prefix_cache),
        batching=BatchingConfig(max_sequences=max_sequences, max_step_tokens=max_step_tokens),
        **sections,
    )
    model = Model(
        name="fake",
        executor=executor,
        tokenizer=ByteTokenizer(),
        decoder=ByteDecoder,
        template=FakeTemplate(thinks),
        context_length=context_length,
        limits=StepLimits(max_sequences=max_sequences, max_step_tokens=max_step_tokens, max_logit_rows=max_logit_rows),
        generation_defaults=generation_defaults or {},
        presets=presets,
        read_adapter=read_adapter,
    )
    return NativeEngine(section, lambda _: model), executor


def ask(prompt: str | tuple[int, ...] = "hello", max_tokens: int = 8, **fields: object) -> Request:
    """A seeded request of so many tokens."""
    fields.setdefault("sampling", Sampling(seed=5))
    fields.setdefault("stop", Stop(ignore_eos=True))
    fields.setdefault("limits", Limits(max_tokens=max_tokens))
    if "messages" in fields:
        return Request(id="r", **fields)
    return Request(id="r", prompt=prompt, **fields)


@dataclass
class Answer:
    """A stream, gathered."""

    events: list[Event]

    def text(self, index: int = 0, channel: str = "answer") -> str:
        return "".join(d.text for d in self.deltas(index, channel))

    def tokens(self, index: int = 0, channel: str | None = None) -> list[int]:
        return [t for d in self.deltas(index, channel) for t in d.token_ids]

    def deltas(self, index: int = 0, channel: str | None = None) -> list[Delta]:
        return [
            e
            for e in self.events
            if isinstance(e, Delta) and e.index == index and (channel or e.channel) == e.channel
            and (channel is not None or e.channel != "prompt")
        ]  # fmt: skip

    def finished(self, index: int = 0) -> Finished:
        (found,) = [e for e in self.events if isinstance(e, Finished) and e.index == index]
        return found

    @property
    def done(self) -> Done:
        assert isinstance(self.events[-1], Done), self.events[-1]
        return self.events[-1]

    @property
    def failed(self) -> Failed:
        assert isinstance(self.events[-1], Failed), self.events[-1]
        return self.events[-1]


async def gather(engine, request: Request) -> Answer:
    """The whole stream of a request."""
    return Answer([event async for event in engine.generate(request)])


def open_fake(section: NativeSection, context: object) -> NativeEngine:
    """For a worker process: an engine over the fake, slow enough to be caught in the middle."""
    if section.checkpoint == "broken":
        raise CheckpointError("this checkpoint is broken")
    engine, _ = make_engine(step_s=0.004, check=False, num_blocks=256, context_length=2048, script=None)
    return engine
