"""The parts of requests that say what a container is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from google.protobuf.field_mask_pb2 import FieldMask

from sandpool._core.arguments import changed, given, one_of, pairs, refuse, words
from sandpool._core.enums import PullPolicy
from sandpool.v1 import pool_pb2

READINESS_INTERVAL: Final = 0.5
READINESS_TIMEOUT: Final = 5.0
READINESS_RETRIES: Final = 20
"""The server's defaults, as the contract says them, in seconds and in tries."""

PullPolicyLike: TypeAlias = PullPolicy | Literal["missing", "always", "never"]
"""A pull policy, or its word."""


@dataclass(frozen=True)
class Spec:
    """Arguments that say what a container is; None where the caller gave none. `disk_mb` is `ephemeral_disk_mb`."""

    image: str | None = None
    cpus: float | None = None
    memory_mb: int | None = None
    ephemeral_disk_mb: int | None = None
    disk_mb: int | None = None
    secret_names: Iterable[str] | None = None
    entrypoint: Iterable[str] | None = None
    env: Mapping[str, str] | None = field(default=None, repr=False)
    readiness_command: Iterable[str] | None = None
    readiness_interval_secs: float | None = None
    readiness_timeout_secs: float | None = None
    readiness_retries: int | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of a request, as far as given."""
        return given(
            image=self.image,
            cpus=self.cpus,
            memory_mb=self.memory_mb,
            ephemeral_disk_mb=one_of(None, ephemeral_disk_mb=self.ephemeral_disk_mb, disk_mb=self.disk_mb),
            secret_names=words("secret_names", self.secret_names),
            entrypoint=words("entrypoint", self.entrypoint),
            env=pairs("env", self.env),
            readiness_command=words("readiness_command", self.readiness_command),
            readiness_interval_secs=self.readiness_interval_secs,
            readiness_timeout_secs=self.readiness_timeout_secs,
            readiness_retries=self.readiness_retries,
        )

    def readiness_secs(self) -> float:
        """How long a container may take to become ready at most, beyond its start, in seconds."""
        if self.readiness_command is None:
            return 0.0
        interval = READINESS_INTERVAL if self.readiness_interval_secs is None else self.readiness_interval_secs
        limit = READINESS_TIMEOUT if self.readiness_timeout_secs is None else self.readiness_timeout_secs
        tries = READINESS_RETRIES if self.readiness_retries is None else self.readiness_retries
        return tries * (interval + limit)

    def refuse_all(self, source: str) -> None:
        """Raise TypeError where any is given: `source` says what the container is."""
        refuse(
            f"the {source} says what the container is; leave this out, or give an image instead of the {source}",
            image=self.image,
            cpus=self.cpus,
            memory_mb=self.memory_mb,
            ephemeral_disk_mb=self.ephemeral_disk_mb,
            disk_mb=self.disk_mb,
            secret_names=self.secret_names,
            entrypoint=self.entrypoint,
            env=self.env,
            readiness_command=self.readiness_command,
            readiness_interval_secs=self.readiness_interval_secs,
            readiness_timeout_secs=self.readiness_timeout_secs,
            readiness_retries=self.readiness_retries,
        )


def pull_policy(value: PullPolicyLike | None) -> pool_pb2.PullPolicy.ValueType | None:
    """The contract's number for a pull policy. Raises ValueError for one that there is not."""
    return None if value is None else pool_pb2.PullPolicy.Value(f"PULL_POLICY_{PullPolicy(value).upper()}")


def changes(**arguments: object) -> dict[str, Any]:
    """The fields of an update, mask included: what is not UNSET. None puts a field back to its default.

    Raises TypeError where nothing is given.
    """
    found = changed(**arguments)
    for name, value in found.items():
        if name in {"secret_names", "entrypoint", "readiness_command"}:
            found[name] = words(name, value)
        elif name in {"metadata", "env"}:
            found[name] = pairs(name, value)
        elif name == "pull_policy":
            found[name] = pull_policy(value)
    return {**given(**found), "update_mask": FieldMask(paths=list(found))}
