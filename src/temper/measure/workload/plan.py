"""From a workload to requests with a time: what every engine in a comparison is asked, word for word.

A plan depends on the workload and the wording alone. Requests are numbered; disjoint ranges of numbers
(`first`) give prompts that no earlier part of a run has warmed a cache for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from temper.errors import Invalid
from temper.measure.workload.arrivals import poisson
from temper.measure.workload.lengths import draw
from temper.measure.workload.schema import Chats, Mooncake, Open, Questions, Recorded, ShareGpt, Synthetic, Workload
from temper.measure.workload.text import Wording, shared, unique
from temper.measure.workload.trace import Conversation, conversations, mooncake, questions
from temper.types import Limits, Message, Request, Sampling, Stop


@dataclass(frozen=True, slots=True)
class Session:
    """What one user asks, one request after the other."""

    index: int
    start_s: float | None
    """Seconds after the start of the run when the first request is due; None: when a place is free."""
    requests: tuple[Request, ...]
    pause_s: float = 0.0
    """Between an answer and the next request."""


def plan(workload: Workload, wording: Wording, *, first: int = 0, count: int | None = None) -> list[Session]:
    """Sessions that hold `count` requests (default: the workload's), the `first` ones of the workload left out.

    Raises:
        Invalid: the workload cannot be planned: a trace is broken or too short, timestamps are wanted and not there.
    """
    wanted = workload.requests if count is None else count
    if wanted == 0:
        return []
    sessions: list[Session] = []
    held = 0
    stream = itertools.islice(_sessions(workload, wording), first, None)
    for session in _timed(workload, stream):
        room = wanted - held
        kept = session if len(session.requests) <= room else Session(
            session.index, session.start_s, session.requests[:room], session.pause_s
        )  # fmt: skip
        sessions.append(kept)
        held += len(kept.requests)
        if held == wanted:
            return sessions
    raise Invalid(
        f"the trace has {held} requests left, but {wanted} are asked for",
        param="requests",
        hint="ask for fewer requests or less warm-up",
    )


def _timed(workload: Workload, sessions: Iterator[Session]) -> Iterator[Session]:
    """The same sessions with the start that the arrivals give them."""
    arrivals = workload.arrivals
    if isinstance(arrivals, Open):
        for session, at in zip(sessions, poisson(arrivals.rate, workload.seed), strict=False):
            yield Session(session.index, at, session.requests, session.pause_s)
    elif isinstance(arrivals, Recorded):
        began: float | None = None
        for session in sessions:
            if session.start_s is None:
                raise Invalid(
                    f"recorded arrivals need timestamps, but '{workload.content.kind}' content has none",
                    param="arrivals.kind",
                    hint="use closed or open arrivals",
                )
            began = session.start_s if began is None else began
            at = (session.start_s - began) / arrivals.speed
            yield Session(session.index, at, session.requests, session.pause_s)
    else:
        for session in sessions:
            yield Session(session.index, None, session.requests, session.pause_s)


def _sessions(workload: Workload, wording: Wording) -> Iterator[Session]:
    content = workload.content
    match content:
        case Synthetic():
            return _synthetic(workload, content, wording)
        case Chats():
            return _chats(workload, content, wording)
        case Mooncake():
            return _mooncake(workload, content, wording)
        case ShareGpt():
            return _sharegpt(workload, content)
        case Questions():
            return _questions(workload, content)


def _request(workload: Workload, name: str, output_tokens: int, **what: object) -> Request:
    return Request(
        id=f"bench-{workload.seed}-{name}",
        sampling=Sampling(temperature=workload.temperature, seed=workload.seed if workload.temperature else None),
        stop=Stop(ignore_eos=workload.ignore_eos),
        limits=Limits(max_tokens=output_tokens),
        **what,  # type: ignore[arg-type]
    )


def _synthetic(workload: Workload, content: Synthetic, wording: Wording) -> Iterator[Session]:
    for index in itertools.count():
        rng = Random(f"{workload.seed}/lengths/{index}")
        length, output = draw(content.input_tokens, rng), draw(content.output_tokens, rng)
        common = min(content.shared_prefix_tokens, length - 1)
        symbols = shared(workload.seed, f"prefix/{index % content.num_prefixes}", content.shared_prefix_tokens)[:common]
        symbols += unique(workload.seed, index, length - common)
        if content.as_chat:
            request = _request(workload, str(index), output, messages=(Message("user", wording.text(symbols)),))
        else:
            request = _request(workload, str(index), output, prompt=wording.prompt(symbols))
        yield Session(index, None, (request,))


def _chats(workload: Workload, content: Chats, wording: Wording) -> Iterator[Session]:
    for index in itertools.count():
        rng = Random(f"{workload.seed}/chat/{index}")
        system = shared(workload.seed, f"system/{index % content.num_systems}", content.system_tokens)
        history = [Message("system", wording.text(system))] if system else []
        requests = []
        for turn in range(draw(content.turns, rng)):
            asked, output = draw(content.user_tokens, rng), draw(content.output_tokens, rng)
            symbols = unique(workload.seed, index, asked) if turn == 0 else rng.choices(range(256), k=asked)
            history.append(Message("user", wording.text(symbols)))
            requests.append(_request(workload, f"{index}-{turn}", output, messages=tuple(history)))
            history.append(Message("assistant", wording.text(rng.choices(range(256), k=output))))
        yield Session(index, None, tuple(requests), content.pause_s)


def _mooncake(workload: Workload, content: Mooncake, wording: Wording) -> Iterator[Session]:
    for index, line in enumerate(mooncake(content)):
        symbols: list[int] = []
        for block in line.hash_ids:
            symbols += shared(workload.seed, f"block/{block}", content.block_tokens)
        length = min(line.input_length, content.max_input_tokens or line.input_length)
        output = min(line.output_length, content.max_output_tokens or line.output_length)
        request = _request(workload, str(index), output, prompt=wording.prompt(symbols[:length]))
        yield Session(index, line.timestamp_ms / 1000, (request,))


def _sharegpt(workload: Workload, content: ShareGpt) -> Iterator[Session]:
    for index, conversation in enumerate(conversations(content)):
        yield Session(index, None, tuple(_turns(workload, index, conversation)))


def _questions(workload: Workload, content: Questions) -> Iterator[Session]:
    for index, messages in enumerate(questions(content)):
        output = draw(content.output_tokens, Random(f"{workload.seed}/lengths/{index}"))
        yield Session(index, None, (_request(workload, str(index), output, messages=messages),))


def _turns(workload: Workload, index: int, conversation: Conversation) -> Iterator[Request]:
    for number, (end, output) in enumerate(conversation.questions):
        yield _request(workload, f"{index}-{number}", output, messages=conversation.messages[: end + 1])
