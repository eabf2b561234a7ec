"""The LoRA adapters that an engine holds: named, bounded, counted, and given up only when nobody uses them.

Belongs to the event loop. Reading and packing run beside it, putting an adapter into the executor and taking it
out runs between two steps, so running requests go on. A name stands for one adapter at a time: an adapter that
was replaced or unloaded takes no new requests and stays until its last one has ended. It knows no requests' text,
and neither files nor formats.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor as Threads
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from temper.errors import CheckpointError, Draining, Invalid, NotFound, Unsupported
from temper.kernels.lora import PackedAdapter, TakesAdapters, Updates

if TYPE_CHECKING:
    from temper.engines.native.template import ChatTemplate
    from temper.profile.native import AdapterLimits

_log = logging.getLogger(__name__)
MAX_NAME_CHARS = 256


class Read(Protocol):
    """An adapter that fits the model."""

    @property
    def updates(self) -> Updates:
        """Weight name → update."""

    @property
    def version(self) -> str:
        """A hash over all that it computes with, in hexadecimal."""

    @property
    def rank(self) -> int:
        """The largest of its ranks."""

    @property
    def template(self) -> ChatTemplate:
        """By which it was taught to read."""


Reader = Callable[[str, int, int], Read]
"""(source, largest rank, most bytes) → the adapter. Raises NotFound or CheckpointError."""

OnStepThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a call between two steps and returns what it did."""


class Loaded:
    """One adapter in the executor."""

    __slots__ = (
        "freed", "is_leaving", "name", "num_bytes", "num_users", "rank", "slot", "source", "template", "version",
    )  # fmt: skip

    def __init__(self, name: str, source: str, read: Read, packed: PackedAdapter, slot: int) -> None:
        self.name = name
        self.source = source
        self.version = read.version
        self.rank = read.rank
        self.template = read.template
        """By which it was taught to read."""
        self.num_bytes = packed.num_bytes
        self.slot = slot
        self.num_users = 0
        """Requests that were begun with it and are not over."""
        self.is_leaving = False
        self.freed = asyncio.Event()

    @property
    def label(self) -> str:
        """Name and version, for who reads an answer's `made_by`."""
        return f"{self.name}@{self.version[:12]}"

    @property
    def salt(self) -> bytes:
        """Keeps its cached blocks apart from those of every other adapter, itself at another version included."""
        return bytes.fromhex(self.version)


class Adapters:
    """See the module. Made when the engine starts, `close`d when it stops."""

    def __init__(
        self,
        model: str,
        executor: object,
        read: Reader | None,
        limits: AdapterLimits | None,
        on_step_thread: OnStepThread,
        threads: Threads,
    ) -> None:
        """`model` is the engine's own name. Without `read` or `limits`, or with another kind of executor, adapters are
        refused."""
        self._model = model
        self._executor = executor if isinstance(executor, TakesAdapters) else None
        self._read = read
        self.limits = limits
        """What may be loaded from now on."""
        self._on_step_thread = on_step_thread
        self._threads = threads
        self._by_name: dict[str, Loaded] = {}
        self._held: list[Loaded] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Those that take requests, in the order in which they came."""
        return tuple(self._by_name)

    @property
    def versions(self) -> tuple[str, ...]:
        """Of each of `names`."""
        return tuple(loaded.version for loaded in self._by_name.values())

    def figures(self) -> dict[str, Any]:
        """What each adapter takes and how many requests use it; replaced ones are counted together."""
        leaving = [loaded for loaded in self._held if loaded.is_leaving]
        return {
            "loaded": {
                name: {"version": a.version, "rank": a.rank, "bytes": a.num_bytes, "running": a.num_users}
                for name, a in self._by_name.items()
            },
            "leaving": len(leaving),
            "bytes": sum(loaded.num_bytes for loaded in self._held),
        }

    # -- requests ------------------------------------------------------------------------------------

    def take(self, name: str) -> Loaded:
        """The adapter called `name`, which stays until it is given back.

        Raises:
            NotFound: there is none.
            Unsupported: this engine takes no adapters.
        """
        found = self._by_name.get(name)
        if found is None:
            if self._executor is None or self._read is None or self.limits is None:
                raise Unsupported(f"model '{self._model}' lacks the capability 'adapters'", param="adapter")
            known = f"there are {', '.join(self._by_name)}" if self._by_name else "none is loaded"
            raise NotFound(f"'{self._model}' has no adapter '{name}'", param="adapter", hint=known)
        found.num_users += 1
        return found

    def give_back(self, loaded: Loaded) -> None:
        """One request less uses it. What frees the request must have been posted to the step thread before."""
        loaded.num_users -= 1
        if loaded.is_leaving and loaded.num_users == 0:
            self._free(loaded)

    # -- changing ------------------------------------------------------------------------------------

    async def load(self, name: str, source: str, *, replace: bool = False) -> None:
        """Read, check, pack and attach the adapter; from then on requests may name it.

        With `replace`, a name that is taken goes over to the new one: requests that run end with the old.

        Raises:
            Unsupported: this engine takes no adapters.
            Invalid: the name will not do or is taken, or there are too many.
            NotFound, CheckpointError: as the adapter's reader says, or it is larger than what is left of the budget.
        """
        executor, read, limits = self._executor, self._read, self.limits
        if executor is None or read is None or limits is None:
            raise Unsupported(f"model '{self._model}' lacks the capability 'adapters'", param="lora_name")
        if not 1 <= len(name) <= MAX_NAME_CHARS or name == self._model:
            raise Invalid(
                f"an adapter's name has 1 to {MAX_NAME_CHARS} characters and is not the model's own, got '{name[:80]}'",
                param="lora_name",
            )
        loop = asyncio.get_running_loop()
        async with self._lock:
            if name in self._by_name and not replace:
                raise Invalid(f"an adapter '{name}' is loaded already", param="lora_name",
                              hint="unload it first, or send load_inplace")  # fmt: skip
            if len(self._held) >= limits.max_loaded:
                raise Invalid(f"{len(self._held)} adapters are held, lora.max_loaded is {limits.max_loaded}",
                              param="lora_name", hint="unload one first, or raise it")  # fmt: skip
            left = limits.max_total_bytes - sum(loaded.num_bytes for loaded in self._held)
            found = await loop.run_in_executor(self._threads, read, source, limits.max_rank, left)
            if name in self._by_name and self._by_name[name].version == found.version:
                return
            try:
                packed = await loop.run_in_executor(self._threads, executor.pack_adapter, found.updates)
            except ValueError as error:
                raise CheckpointError(f"the adapter does not fit the model: {error}") from error
            if packed.num_bytes > left:
                raise CheckpointError(
                    f"the adapter takes {packed.num_bytes} bytes, {left} of lora.max_total_bytes are left",
                    hint="unload one first, or raise it",
                )
            # Once begun it is brought to its end, or a caller who gives up would leave a slot that nobody knows.
            await asyncio.shield(self._task(self._attach(name, source, found, packed)))

    async def unload(self, name: str, *, wait: bool = True) -> None:
        """Take no new requests for it; with `wait`, return when its last request has ended and its memory is free.

        Raises:
            NotFound: there is none of this name.
        """
        loaded = self._by_name.pop(name, None)
        if loaded is None:
            raise NotFound(f"'{self._model}' has no adapter '{name}'", param="lora_name")
        self._leave(loaded)
        if wait:
            await loaded.freed.wait()

    def close(self) -> None:
        """The engine stops: whoever waits for an adapter to go need not wait longer."""
        for task in self._tasks:
            task.cancel()
        for loaded in self._held:
            loaded.freed.set()
        self._held.clear()
        self._by_name.clear()

    # -- inside --------------------------------------------------------------------------------------

    async def _attach(self, name: str, source: str, read: Read, packed: PackedAdapter) -> None:
        assert self._executor is not None, "it has packed the adapter"
        slot = await self._on_step_thread(partial(self._executor.attach_adapter, packed))
        loaded = Loaded(name, source, read, packed, slot)
        old = self._by_name.get(name)  # it may have been unloaded meanwhile
        self._held.append(loaded)
        self._by_name[name] = loaded
        _log.info("adapter '%s' (version %s) is loaded", name, loaded.version[:12])
        if old is not None:
            self._leave(old)

    def _leave(self, loaded: Loaded) -> None:
        loaded.is_leaving = True
        if loaded.num_users == 0:
            self._free(loaded)

    def _free(self, loaded: Loaded) -> None:
        self._task(self._detach(loaded))

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _detach(self, loaded: Loaded) -> None:
        assert self._executor is not None, "it was attached"
        with contextlib.suppress(Draining):  # the engine is stopping, and the executor goes with it
            await self._on_step_thread(partial(self._executor.detach_adapter, loaded.slot))
        if loaded in self._held:
            self._held.remove(loaded)
        loaded.freed.set()
        _log.info("adapter '%s' (version %s) is unloaded", loaded.name, loaded.version[:12])
