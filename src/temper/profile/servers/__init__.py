"""The flags of other servers, one schema each: what is tuned, what it means, how it is spelled.

`vllm`, `sglang` and `llama_server` are lists of flags, `flags` says how they are read. Flags that no schema
names are kept on the command line as they stand.
"""

from __future__ import annotations

from temper.profile.servers.flags import Flags, NoFlags
from temper.profile.servers.llama_server import LlamaServerFlags
from temper.profile.servers.sglang import SglangFlags
from temper.profile.servers.vllm import VllmFlags

FLAGS: dict[str, type[Flags]] = {kind.server: kind for kind in (VllmFlags, SglangFlags, LlamaServerFlags, NoFlags)}
"""The schema of each kind of server."""

__all__ = ["FLAGS", "Flags", "LlamaServerFlags", "NoFlags", "SglangFlags", "VllmFlags"]
