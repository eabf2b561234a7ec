"""What a place lends to engines, whatever their kind: folders, endpoints, the environment. Knows no profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from temper.errors import NotFound

if TYPE_CHECKING:
    from temper.engines.openai.endpoint import Endpoint


def no_endpoint(name: str) -> Endpoint:
    """A place that knows no remote servers."""
    raise NotFound(f"no endpoint is called '{name}': none are known here", param="engine.endpoint")


@dataclass(frozen=True, slots=True)
class Context:
    """What a place lends to a deployment; never part of a profile."""

    cache_dir: Path
    """Downloads: checkpoints fetched by name."""
    home: Path
    """State that outlives the process."""
    hub_endpoint: str | None = None
    """Another Hugging Face hub than the public one."""
    endpoints: Callable[[str], Endpoint] = no_endpoint
    """Looks a remote server up by name: its address and key."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The environment that launched servers get their share of."""
