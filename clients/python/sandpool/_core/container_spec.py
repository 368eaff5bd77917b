"""Requests that contain a container specification, and requests that update fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask

from sandpool._core.arguments import (
    UNSET,
    choice,
    duration,
    is_given,
    new_request_id,
    present,
    reject,
    reject_unknown,
    string_map,
    strings,
)
from sandpool._core.options import SpecChanges, SpecOptions, UpdateOptions, names
from sandpool._models.container import ReadinessProbe
from sandpool._models.enums import PullPolicy
from sandpool.v1 import container_pb2

PROBE_INTERVAL: Final = 0.5
PROBE_TIMEOUT: Final = 5.0
PROBE_FAILURE_THRESHOLD: Final = 20
"""The server's defaults of a readiness probe."""

Convert = Callable[[Any], Any]


def message(
    image: str | None, env: Mapping[str, str] | None, options: Mapping[str, Any]
) -> container_pb2.ContainerSpec:
    """Return the message for a specification. Values that are None or UNSET are left out."""
    probe = options.get("readiness_probe")
    policy = options.get("pull_policy")
    return container_pb2.ContainerSpec(
        **present(
            image=image,
            cpus=options.get("cpus"),
            memory_mb=options.get("memory_mb"),
            ephemeral_disk_mb=options.get("ephemeral_disk_mb"),
            env=string_map("env", env),
            entrypoint=strings("entrypoint", options.get("entrypoint")),
            secret_names=strings("secret_names", options.get("secret_names")),
            pull_policy=_pull_policy(policy) if is_given(policy) else None,
            readiness_probe=None if probe is None or probe is UNSET else _readiness_probe(probe),
        )
    )


def reject_spec(source: str, options: Mapping[str, Any], *more: str) -> None:
    """Raise TypeError if fields of a specification are given although `source` already defines it.

    `more` names arguments that are rejected too.
    """
    given = {name: options.get(name) for name in (*more, *names(SpecOptions))}
    reject(f"the {source} defines the specification; to define it here, give image instead of the {source}", **given)


def readiness_limit(options: Mapping[str, Any]) -> float:
    """Return how long a readiness probe can take before the container is abandoned, in seconds."""
    probe: ReadinessProbe | None = options.get("readiness_probe")
    if probe is None:
        return 0.0
    interval = PROBE_INTERVAL if probe.interval is None else probe.interval
    timeout = PROBE_TIMEOUT if probe.timeout is None else probe.timeout
    threshold = PROBE_FAILURE_THRESHOLD if probe.failure_threshold is None else probe.failure_threshold
    return threshold * (interval + timeout)


def update(
    function: str, group: Any, changes: Mapping[str, Any], fields: Mapping[str, tuple[str, Convert]]
) -> dict[str, Any]:
    """Return the fields of an update request, including the mask.

    Args:
        function: The name of the method, for errors.
        group: The group of arguments that the method accepts.
        changes: The arguments. UNSET leaves a field unchanged, None resets it to its default.
        fields: For each argument that is not part of the specification, the name of the field and the conversion.

    Raises:
        TypeError: An argument is not known, or no argument changes a field.
    """
    reject_unknown(function, changes, names(group))
    options = names(UpdateOptions)
    given = {name: value for name, value in changes.items() if name not in options and value is not UNSET}
    if not given:
        possible = [name for name in names(group) if name not in options]
        raise TypeError(f"{function}() has nothing to update; give at least one of {', '.join(possible)}")
    request: dict[str, Any] = {}
    paths = []
    spec = {name: given.pop(name) for name in names(SpecChanges) if name in given}
    if spec:
        request["spec"] = message(spec.get("image"), spec.get("env"), spec)
        paths += [f"spec.{name}" for name in spec]
    for name, value in given.items():
        field, convert = fields[name]
        paths.append(field)
        if value is not None:
            request[field] = convert(value)
    request["update_mask"] = FieldMask(paths=paths)
    request["etag"] = changes.get("etag") or ""
    request["request_id"] = changes.get("request_id") or new_request_id()
    return request


def unchanged(value: Any) -> Any:
    """Return the value: the conversion of a field that needs none."""
    return value


def lifetime(value: float) -> Any:
    """Convert `timeout_secs`."""
    return duration("timeout_secs", value)


def _pull_policy(value: Any) -> container_pb2.PullPolicy.ValueType:
    policy = choice("pull_policy", PullPolicy, value)
    return container_pb2.PullPolicy.Value(f"PULL_POLICY_{policy.upper()}")


def _readiness_probe(probe: ReadinessProbe) -> container_pb2.ReadinessProbe:
    if not isinstance(probe, ReadinessProbe):
        raise TypeError(f"readiness_probe must be a ReadinessProbe, not {type(probe).__name__}")
    return container_pb2.ReadinessProbe(
        command=list(probe.command),
        **present(
            interval=duration("interval", probe.interval),
            timeout=duration("timeout", probe.timeout),
            failure_threshold=probe.failure_threshold,
        ),
    )
