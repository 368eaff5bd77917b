"""The specification of a container.

A new field is added here and in `ContainerSpec` of the contract. `to_json`, `from_json` and `digest` handle every field
generically.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self


class PullPolicy(StrEnum):
    """When the engine pulls an image: when it is missing, before each container, or never."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class ReadinessProbe:
    """A command that must succeed before a container is ready. Durations are in seconds.

    The server runs the command every `interval_secs`, for at most `timeout_secs` each time. The container is abandoned
    after `failure_threshold` failures.
    """

    command: tuple[str, ...]
    interval_secs: float = 0.5
    timeout_secs: float = 5.0
    failure_threshold: int = 20


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """The image, the resources and the settings of a container. Instances of equal specifications are interchangeable.

    Sizes are in MiB. `env` contains pairs that are sorted by name.
    """

    image: str
    cpus: float = 1.0
    memory_mb: int = 512
    ephemeral_disk_mb: int = 1024
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    secret_names: tuple[str, ...] = ()
    pull_policy: PullPolicy = PullPolicy.MISSING
    readiness_probe: ReadinessProbe | None = None

    def digest(self) -> str:
        """Return 16 hexadecimal digits that identify the content.

        Equal specifications have equal digests in all processes and versions of the server. The digest omits fields
        with their default value, so a new field does not change existing digests. It also omits `pull_policy`, because
        the policy does not change the container.
        """
        content = {name: value for name, value in self.to_json().items() if name not in _NOT_IN_DIGEST}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from their default as JSON values."""
        return _to_json(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the specification that `to_json` describes; absent fields have their default."""
        given = {name: _frozen(value) for name, value in values.items()}
        if "pull_policy" in given:
            given["pull_policy"] = PullPolicy(given["pull_policy"])
        if "readiness_probe" in given:
            given["readiness_probe"] = ReadinessProbe(**given["readiness_probe"])
        return cls(**given)


_NOT_IN_DIGEST = frozenset({"pull_policy"})


def _to_json(value: ContainerSpec | ReadinessProbe) -> dict[str, Any]:
    json_values = {}
    for field in fields(value):
        content = getattr(value, field.name)
        if content != field.default:
            json_values[field.name] = _to_json(content) if isinstance(content, ReadinessProbe) else content
    return json_values


def _frozen(value: Any) -> Any:
    """Return a JSON value with tuples in place of lists."""
    if isinstance(value, list):
        return tuple([_frozen(item) for item in value])
    return {name: _frozen(item) for name, item in value.items()} if isinstance(value, dict) else value
