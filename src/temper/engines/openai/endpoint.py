"""Where a remote model is reached: address and key, which belong to a place and never to a profile.

A profile names an endpoint; what the name means is written in `endpoints.toml` in the home folder:

    [local]
    url = "http://127.0.0.1:8001/v1"

    [deepseek]
    url = "https://api.deepseek.com/v1"
    key_env = "DEEPSEEK_API_KEY"     # or key_file = "~/.config/deepseek.key"
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from temper.errors import Invalid, NotFound

FILE = "endpoints.toml"
_FIELDS = {"url", "key_env", "key_file"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server's address, checked, and what it wants to see."""

    url: str
    """Up to and without the last part of OpenAI's paths: `http://127.0.0.1:8000/v1`. `/v1` is added to a bare host."""
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check and complete the address.

        Raises:
            Invalid: it is no http or https URL, or carries a password, a query or a fragment.
        """
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise Invalid(f"'{self.url}' is no URL: {error}", param="url") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise Invalid(
                f"'{self.url}' is no http or https URL", param="url", hint="write it like http://127.0.0.1:8000/v1"
            )
        if parts.username is not None or parts.query or parts.fragment:
            raise Invalid(
                "an endpoint's URL has no user, password, query or fragment", param="url", hint="keys go into key_env"
            )
        path = parts.path.rstrip("/") or "/v1"
        object.__setattr__(self, "url", f"{parts.scheme}://{parts.netloc}{path}")

    @property
    def root(self) -> str:
        """The address without `/v1`: where `/health`, `/tokenize` and `/metrics` are."""
        return self.url.removesuffix("/v1")


def find(name: str, home: Path, environ: Mapping[str, str]) -> Endpoint:
    """The endpoint of this name in `endpoints.toml` in `home`, its key filled in.

    Raises:
        NotFound: nobody said what the name means.
        Invalid: the file is no TOML, the entry has an unknown field, or its key is not there.
    """
    path = home / FILE
    tables: Mapping[str, Any] = {}
    if path.is_file():
        try:
            tables = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"{path} is not TOML: {error}", param="endpoints") from None
    if name not in tables:
        near = difflib.get_close_matches(name, tables, n=1)
        raise NotFound(
            f"no endpoint is called '{name}'",
            param="engine.endpoint",
            hint=f"did you mean '{near[0]}'?" if near else f"write [{name}] with its url into {path}",
        )
    return _endpoint(name, tables[name], path, environ)


def _endpoint(name: str, table: Any, path: Path, environ: Mapping[str, str]) -> Endpoint:
    where = f"{path}: [{name}]"
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise Invalid(f"{where} must be a table of texts", param=name)
    unknown = sorted(set(table) - _FIELDS)
    if unknown:
        near = difflib.get_close_matches(unknown[0], _FIELDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(_FIELDS))}"
        raise Invalid(f"{where} has an unknown field '{unknown[0]}'", param=f"{name}.{unknown[0]}", hint=hint)
    if "url" not in table:
        raise Invalid(f"{where} needs 'url'", param=f"{name}.url")
    return Endpoint(table["url"], _key(where, table, environ))


def _key(where: str, table: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    if "key_env" in table:
        if not environ.get(table["key_env"]):
            raise Invalid(f"{where}: the environment variable {table['key_env']} is not set", param="key_env")
        return environ[table["key_env"]]
    if "key_file" in table:
        file = Path(table["key_file"]).expanduser()
        try:
            return file.read_text("utf-8").strip()
        except OSError as error:
            raise Invalid(f"{where}: the key file cannot be read: {error}", param="key_file") from None
    return None
