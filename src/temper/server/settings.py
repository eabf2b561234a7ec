"""What a place decides about its server. Never part of a profile, read from no environment here."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Access, limits and manners of one server."""

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys that open the API; none: no key is asked for."""
    admin_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys that open what only an operator may do (`auth.ADMIN_PATHS`) and nothing else; none: it stays shut."""
    open_paths: tuple[str, ...] = ("/health", "/ready")
    """Paths that need no key. A path that ends in `/*` opens everything below it."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that a `Host` header may carry besides the loopback names, when a connection came in over
    loopback (a page elsewhere could otherwise reach this server under a name of its own). `*`: any."""
    cors_origins: tuple[str, ...] = ()
    """Pages of other origins that may call this server from a browser. `*`: any."""
    max_body_bytes: int = 16 << 20
    """Longest request body, counted as it arrives."""
    body_timeout_s: float = 30.0
    """A body that is not complete by then is refused."""
    max_prompts: int = 256
    """Prompts in one completions request, and inputs in one embeddings request."""
    max_samples: int = 512
    """Prompts times `n` in one request."""
    max_messages: int = 4096
    """Turns in one conversation."""
    max_stop_strings: int = 64
    """Stop strings in one request; an engine may allow fewer."""
    max_logit_bias: int = 1024
    """Tokens with a bias in one request."""
    keep_alive_s: float = 10.0
    """A stream that was silent for so long gets a comment, so that nobody between hangs up."""
