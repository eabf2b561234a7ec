"""What goes over the socket between the API process and its worker: length-prefixed msgpack.

Encodes the shared vocabulary generically: a dataclass is its fields in order, an error its code and
texts, an array its shape and bytes. Nothing that could run code is ever decoded. It knows no
messages; `worker.py` and `remote.py` agree on those:

| from parent | | from worker | |
|---|---|---|---|
| `open` | section JSON, cache dir, home, hub endpoint, adapters | `ready`, `can` | capabilities |
| `generate` | id, request | `events` | ((id, events), …): one frame a step |
| `cancel` | id | `refused` | id, error |
| `call` | id, method, args, kwargs | `result` / `raised` | id, value / id, error |
| `stop` | drain_s | `rows` | id, array name, first row, rows, of how many |
| | | `beat` | stats, health |
| | | `failed` | error: the engine did not start |
| | | `stopped` | |
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

from temper import types
from temper.engines import base, tracing
from temper.errors import EngineFailure, Invalid, TemperError, from_code

MAX_FRAME_BYTES: Final = 64 << 20
"""A larger frame is refused at both ends: nothing that a client controls may fill the memory."""

_LENGTH = struct.Struct("<I")
_TUPLE, _ERROR, _ARRAY, _FIRST_TYPE = 1, 2, 3, 10
_ORDER: Final[tuple[type, ...]] = (
    types.MediaPart, types.ToolCall, types.Message, types.TemperatureSchedule, types.Sampling, types.Stop,
    types.Limits, types.Thinking, types.Request, types.TokenLogprob, types.Usage, types.Timings, types.MadeBy,
    types.Accepted, types.Started, types.Delta, types.ToolDelta, types.Finished, types.Failed, types.Done,
    base.Capabilities, base.Health, base.Stats, tracing.EngineTrace,
)  # fmt: skip
_CODES: Final = {kind: _FIRST_TYPE + i for i, kind in enumerate(_ORDER)}
_VALUES: Final = {kind: attrgetter(*(f.name for f in fields(kind))) for kind in _ORDER}


def encode(message: Any) -> bytes:
    """One frame, its length in front.

    Raises:
        Invalid: a number or text of the message has no place in msgpack, or the frame would be too large.
    """
    try:
        body = _pack(message)
    except (OverflowError, ValueError, TypeError) as error:
        raise Invalid(f"the request cannot be sent to the engine: {error}", hint="use smaller numbers") from error
    if len(body) > MAX_FRAME_BYTES:
        raise Invalid(f"a message may have {MAX_FRAME_BYTES} bytes, this one has {len(body)}", hint="send less")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Any:
    """The message in a frame's body. Raises EngineFailure where it is not one."""
    try:
        return _unpack(body)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise EngineFailure(f"between engine and worker came what cannot be read: {error}") from error


async def read(reader: asyncio.StreamReader) -> Any:
    """The next message; None at the end of the stream."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise EngineFailure(f"a frame of {length} bytes is above the limit of {MAX_FRAME_BYTES}")
        return decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, default=_default, strict_types=True, unicode_errors="surrogatepass")
    return packed


def _unpack(body: bytes) -> Any:
    return msgpack.unpackb(body, ext_hook=_ext, strict_map_key=False, unicode_errors="surrogatepass")


def _default(value: Any) -> Any:
    kind = type(value)
    code = _CODES.get(kind)
    if code is not None:
        found = _VALUES[kind](value)
        return msgpack.ExtType(code, _pack(list(found) if len(fields(kind)) > 1 else [found]))
    if kind is tuple:
        return msgpack.ExtType(_TUPLE, _pack(list(value)))
    if isinstance(value, TemperError):
        return msgpack.ExtType(_ERROR, _pack([value.code, value.message, value.param, value.hint, value.retry_after_s]))
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        return msgpack.ExtType(_ARRAY, _pack([value.dtype.str, list(value.shape), value.tobytes()]))
    if isinstance(value, Mapping):
        return dict(value)
    plain: Any
    for plain in (str, int, float, list):
        if isinstance(value, plain):  # a subclass: an enum's member, say
            return plain(value)
    raise TypeError(f"{kind.__name__} has no place on the wire")


def _ext(code: int, body: bytes) -> Any:
    value = _unpack(body)
    if code == _TUPLE:
        return tuple(value)
    if code == _ERROR:
        name, message, param, hint, retry_after_s = value
        return from_code(name, message, param=param, hint=hint, retry_after_s=retry_after_s)
    if code == _ARRAY:
        import numpy as np  # only where arrays travel: the API process starts without it

        dtype, shape, data = value
        return np.frombuffer(data, dtype=dtype).reshape(shape)
    return _ORDER[code - _FIRST_TYPE](*value)
