"""The attributes of a sandbox on its handle."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sandpool._core.enums import SandboxEndReason, SandboxStart, SandboxState
from sandpool._core.model import SandboxInfo


class SandboxView:
    """A sandbox as it was when the handle heard of it last: what `SandboxInfo` has, on the handle itself."""

    def __init__(self, info: SandboxInfo) -> None:
        self._info = info

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__} {self.sandbox_id}{name} {self.state}>"

    @property
    def info(self) -> SandboxInfo:
        """All of it, as it was when the handle heard of it last."""
        return self._info

    @property
    def sandbox_id(self) -> str:
        """The server's identifier."""
        return self._info.sandbox_id

    @property
    def name(self) -> str:
        """The caller's name for it, or empty."""
        return self._info.name

    @property
    def state(self) -> SandboxState:
        """Where it is in its life. `refresh()` asks the server."""
        return self._info.state

    @property
    def status(self) -> SandboxState:
        """The same as `state`."""
        return self._info.state

    @property
    def pool_id(self) -> str:
        """The pool that it counts in, or empty."""
        return self._info.pool_id

    @property
    def template_name(self) -> str:
        """The template that it was made from, or empty."""
        return self._info.template_name

    @property
    def image(self) -> str:
        """The container's image."""
        return self._info.image

    @property
    def cpus(self) -> float:
        """The container's CPUs."""
        return self._info.cpus

    @property
    def memory_mb(self) -> int:
        """The container's memory in MiB."""
        return self._info.memory_mb

    @property
    def ephemeral_disk_mb(self) -> int:
        """The container's disk in MiB."""
        return self._info.ephemeral_disk_mb

    @property
    def timeout_secs(self) -> int:
        """The lifetime in seconds from the claim; 0: none."""
        return self._info.timeout_secs

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Names of the secrets that it was given."""
        return self._info.secret_names

    @property
    def entrypoint(self) -> tuple[str, ...]:
        """The command that runs beside the sandbox's commands."""
        return self._info.entrypoint

    @property
    def env(self) -> Mapping[str, str]:
        """Environment of its processes; what was given for this sandbox alone is not repeated."""
        return self._info.env

    @property
    def metadata(self) -> Mapping[str, str]:
        """Labels of the caller's choice."""
        return self._info.metadata

    @property
    def start(self) -> SandboxStart | None:
        """Whether it was taken ready or started for the caller."""
        return self._info.start

    @property
    def start_duration(self) -> timedelta | None:
        """How long the server took until it ran commands."""
        return self._info.start_duration

    @property
    def create_time(self) -> datetime | None:
        """When it was claimed."""
        return self._info.create_time

    @property
    def expire_time(self) -> datetime | None:
        """When it will be ended; None: it has no lifetime."""
        return self._info.expire_time

    @property
    def end_time(self) -> datetime | None:
        """When it ended; None until then."""
        return self._info.end_time

    @property
    def end_reason(self) -> SandboxEndReason | None:
        """Why it ended; None until then."""
        return self._info.end_reason

    @property
    def end_message(self) -> str:
        """More on why it ended."""
        return self._info.end_message

    @property
    def exit_code(self) -> int | None:
        """The exit code of its container, where that ended by itself."""
        return self._info.exit_code

    @property
    def etag(self) -> str:
        """Give it to an update to refuse to overwrite another's change."""
        return self._info.etag
