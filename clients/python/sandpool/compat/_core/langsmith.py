"""Data and errors of the module `langsmith`."""

from __future__ import annotations

import uuid

import sandpool
from sandpool import FieldViolation, SandpoolError

_ERROR_TYPES = {"IMAGE_NOT_FOUND": "ImagePull", "PULL_FAILED": "ImagePull", "START_FAILED": "CrashLoop"}


def new_name() -> str:
    """Return a unique name for a sandbox."""
    return f"sandbox-{uuid.uuid4().hex[:12]}"


class Pool(sandpool.Pool):
    """A pool of warm containers of one specification."""

    @property
    def replicas(self) -> int | None:
        """The number of warm containers to maintain: `warm_containers`."""
        return self.warm_containers

    @property
    def size(self) -> int | None:
        """The number of warm containers to maintain: `warm_containers`."""
        return self.warm_containers


class ValidationError(sandpool.ValidationError):
    """One or more fields of the request are invalid."""

    @property
    def details(self) -> tuple[FieldViolation, ...]:
        """The invalid fields: `field_violations`."""
        return self.field_violations


class QuotaExceededError(sandpool.QuotaExceededError):
    """A limit is reached, for example `max_containers` of a pool."""

    @property
    def quota_type(self) -> str | None:
        """A stable identifier of the limit: `reason`."""
        return self.reason


class ResourceCreationError(sandpool.ResourceCreationError):
    """The container could not be started."""

    @property
    def error_type(self) -> str:
        """The cause: `ImagePull`, `CrashLoop` or `SandboxConfig`."""
        return _ERROR_TYPES.get(self.reason or "", "SandboxConfig")


class ResourceTimeoutError(sandpool.ResourceTimeoutError):
    """A time limit passed."""

    last_status: str | None = None
    """The last known state of the sandbox that the caller waited for, or None if it is not known."""


class CommandTimeoutError(ResourceTimeoutError, sandpool.CommandTimeoutError):
    """The server did not return the result of a command in time. It is not known whether the command exited.

    A command that exceeds its own timeout raises no error. See `ExecutionResult.timed_out`.
    """


ERROR_CLASSES: dict[type[SandpoolError], type[SandpoolError]] = {
    sandpool.ValidationError: ValidationError,
    sandpool.QuotaExceededError: QuotaExceededError,
    sandpool.ResourceCreationError: ResourceCreationError,
    sandpool.ResourceTimeoutError: ResourceTimeoutError,
    sandpool.CommandTimeoutError: CommandTimeoutError,
}
"""The error classes that clients of the module raise in place of those of `sandpool`."""
