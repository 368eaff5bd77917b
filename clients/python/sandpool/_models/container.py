"""The specification of a container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sandpool._models.enums import PullPolicy


@dataclass(frozen=True)
class ReadinessProbe:
    """A command that must succeed in a container before the container counts as ready.

    A value that is None in a request means the default of the server. Responses contain the effective values.
    """

    command: Sequence[str]
    """The program and its arguments. Exit code 0 means ready."""
    interval: float | None = None
    """Seconds between two attempts, 0.01 to 300. Default: 0.5."""
    timeout: float | None = None
    """Time limit of one attempt in seconds, 0.01 to 300. Default: 5."""
    failure_threshold: int | None = None
    """The number of failed attempts after which the container is abandoned, 1 to 1,000. Default: 20."""

    def __post_init__(self) -> None:
        if isinstance(self.command, (str, bytes)):
            raise TypeError(f"command must be a list of strings, not one string: use command=[{self.command!r}]")
        object.__setattr__(self, "command", tuple(self.command))


@dataclass(frozen=True)
class ContainerSpec:
    """The specification of a container: its image, commands, environment and resource limits.

    `repr` omits `env`, because it may contain secrets.
    """

    image: str
    """The container image."""
    cpus: float
    """The number of CPUs."""
    memory_mb: int
    """The memory in MiB, without swap."""
    ephemeral_disk_mb: int
    """The writable disk space in MiB."""
    env: Mapping[str, str] = field(hash=False, repr=False)
    """Environment variables of the sandbox's processes and of the entrypoint. They override those of the image."""
    entrypoint: list[str] | None = field(hash=False)
    """The program and its arguments that run next to the sandbox's commands, or None."""
    secret_names: list[str] = field(hash=False)
    """The names of the secrets that each sandbox receives as environment variables."""
    pull_policy: PullPolicy
    """When the engine pulls the image."""
    readiness_probe: ReadinessProbe | None
    """The command that decides whether a container is ready, or None: it is ready when it can run commands."""


class SpecAttributes:
    """The fields of `spec` as attributes of the resource itself."""

    spec: ContainerSpec

    @property
    def image(self) -> str:
        """The container image: `spec.image`."""
        return self.spec.image

    @property
    def cpus(self) -> float:
        """The number of CPUs: `spec.cpus`."""
        return self.spec.cpus

    @property
    def memory_mb(self) -> int:
        """The memory in MiB: `spec.memory_mb`."""
        return self.spec.memory_mb

    @property
    def ephemeral_disk_mb(self) -> int:
        """The writable disk space in MiB: `spec.ephemeral_disk_mb`."""
        return self.spec.ephemeral_disk_mb

    @property
    def env(self) -> Mapping[str, str]:
        """The environment variables: `spec.env`."""
        return self.spec.env

    @property
    def entrypoint(self) -> list[str] | None:
        """The program that runs next to the sandbox's commands, or None: `spec.entrypoint`."""
        return self.spec.entrypoint

    @property
    def secret_names(self) -> list[str]:
        """The names of the secrets: `spec.secret_names`."""
        return self.spec.secret_names
