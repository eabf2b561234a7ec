"""One tree of errors for the whole house.

    TemperError
    ├── Invalid               the request (or profile, or command) breaks a rule: fix it, do not retry
    │   ├── Unsupported       this engine cannot do it; names the capability
    │   ├── ContextTooLong    prompt + answer do not fit the context
    │   └── NotFound          no such model, adapter, version, preset
    ├── Rejected              not now: carries `retry_after_s`
    │   ├── QueueFull         too much is waiting already
    │   └── Draining          the engine is stopping, or not started yet
    ├── EngineFailure         the engine broke while it worked
    │   ├── EngineDied        its process is gone
    │   ├── DeadlineExceeded  the caller's own deadline passed
    │   └── OutOfMemory       a hard budget cannot hold even this request alone
    ├── CheckpointError       weights, tokenizer or template cannot be used
    │   ├── MalformedFile     a file breaks its own format
    │   └── FetchFailed       a source could not be reached or did not match its hash
    ├── ProfileError          a profile is not valid
    └── MissingExtra          an optional package is not installed

Every message states the rule, the value met, and the fix. `param` names the offending field of the
request; `code` is a stable word for programs.
"""

from __future__ import annotations

from typing import ClassVar


class TemperError(Exception):
    """Base of every error Temper raises on purpose."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        hint: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.hint = hint
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Invalid(TemperError):
    """The request breaks a rule. `param` names the field."""

    code = "invalid_request"


class Unsupported(Invalid):
    """The engine cannot do what was asked; it says so instead of ignoring the field."""

    code = "unsupported"


class ContextTooLong(Invalid):
    """Prompt and requested answer do not fit the context."""

    code = "context_length_exceeded"


class NotFound(Invalid):
    """A thing was named that is not there."""

    code = "not_found"


class Rejected(TemperError):
    """The engine will not take this request now. `retry_after_s` says when to come back."""

    code = "overloaded"
    retryable = True


class QueueFull(Rejected):
    """The waiting line is at its limit."""

    code = "queue_full"


class Draining(Rejected):
    """The engine is stopping or not ready yet."""

    code = "unavailable"


class EngineFailure(TemperError):
    """The engine broke while working on the request."""

    code = "engine_failure"
    retryable = True


class EngineDied(EngineFailure):
    """The process that computed the answer is gone."""

    code = "engine_died"


class DeadlineExceeded(EngineFailure):
    """The caller's deadline passed before the answer was complete."""

    code = "deadline_exceeded"
    retryable = False


class OutOfMemory(EngineFailure):
    """A hard memory budget cannot hold this request even when it runs alone."""

    code = "out_of_memory"
    retryable = False


class CheckpointError(TemperError):
    """A checkpoint cannot be used."""

    code = "checkpoint_error"


class MalformedFile(CheckpointError):
    """A file breaks the rules of its own format: sizes, offsets, counts, types."""

    code = "malformed_file"


class FetchFailed(CheckpointError):
    """A source could not be reached, or what came does not match its hash."""

    code = "fetch_failed"
    retryable = True


class ProfileError(TemperError):
    """A profile breaks its schema."""

    code = "profile_error"


class MissingExtra(TemperError):
    """An optional dependency is needed here and is not installed."""

    code = "missing_extra"


def _tree(root: type[TemperError]) -> dict[str, type[TemperError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def from_code(
    code: str, message: str, *, param: str | None = None, hint: str | None = None, retry_after_s: float | None = None
) -> TemperError:
    """The error that `code` stands for; used where an error crossed a process border."""
    kind = _tree(TemperError).get(code, EngineFailure)
    return kind(message, param=param, hint=hint, retry_after_s=retry_after_s)
