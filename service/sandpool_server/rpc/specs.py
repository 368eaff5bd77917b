"""Conversion of container specifications and durations between messages of the contract and domain values.

A new scalar field with the same name in both `ContainerSpec` types needs only a line in `spec_message`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from sandpool.v1 import container_pb2
from sandpool_server.domain.spec import ContainerSpec, PullPolicy, ReadinessProbe
from sandpool_server.usecases.values import SpecFields

SPEC_FIELDS = tuple(container_pb2.ContainerSpec.DESCRIPTOR.fields_by_name)
"""The names of all fields of a specification."""

PULL_POLICIES = {
    PullPolicy.MISSING: container_pb2.PULL_POLICY_MISSING,
    PullPolicy.ALWAYS: container_pb2.PULL_POLICY_ALWAYS,
    PullPolicy.NEVER: container_pb2.PULL_POLICY_NEVER,
}
_PULL_POLICIES = {
    container_pb2.PULL_POLICY_UNSPECIFIED: PullPolicy.MISSING,
    **{number: policy for policy, number in PULL_POLICIES.items()},
}
_NANOSECONDS = 1_000_000_000


def spec_fields(spec: container_pb2.ContainerSpec) -> SpecFields:
    """Return the fields that the message sets; lists and maps count when they are not empty."""
    return {
        field.name: _CONVERTED[field.name](value) if field.name in _CONVERTED else value
        for field, value in spec.ListFields()
    }


def spec_message(spec: ContainerSpec) -> container_pb2.ContainerSpec:
    """Return the message with every field at its effective value."""
    return container_pb2.ContainerSpec(
        image=spec.image,
        cpus=spec.cpus,
        memory_mb=spec.memory_mb,
        ephemeral_disk_mb=spec.ephemeral_disk_mb,
        env=dict(spec.env),
        entrypoint=spec.entrypoint,
        secret_names=spec.secret_names,
        pull_policy=PULL_POLICIES[spec.pull_policy],
        readiness_probe=None if spec.readiness_probe is None else _probe_message(spec.readiness_probe),
    )


def seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.seconds + duration.nanos / _NANOSECONDS


def duration(seconds: float) -> Duration:
    """Return a duration of so many seconds, rounded to nanoseconds."""
    message = Duration()
    message.FromNanoseconds(round(seconds * _NANOSECONDS))
    return message


def duration_or_none(seconds: float) -> Duration | None:
    """Return a duration of so many seconds; None, the field is absent, for 0."""
    return duration(seconds) if seconds else None


def _probe(message: container_pb2.ReadinessProbe) -> ReadinessProbe:
    given: dict[str, Any] = {"command": tuple(message.command)}
    if message.HasField("interval"):
        given["interval_secs"] = seconds(message.interval)
    if message.HasField("timeout"):
        given["timeout_secs"] = seconds(message.timeout)
    if message.HasField("failure_threshold"):
        given["failure_threshold"] = message.failure_threshold
    return ReadinessProbe(**given)


def _probe_message(probe: ReadinessProbe) -> container_pb2.ReadinessProbe:
    return container_pb2.ReadinessProbe(
        command=probe.command,
        interval=duration(probe.interval_secs),
        timeout=duration(probe.timeout_secs),
        failure_threshold=probe.failure_threshold,
    )


def _pairs(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return an environment sorted by name, so that equal environments are equal values."""
    return tuple(sorted(env.items()))


_CONVERTED: dict[str, Callable[[Any], Any]] = {
    "env": _pairs,
    "entrypoint": tuple,
    "secret_names": tuple,
    "pull_policy": _PULL_POLICIES.__getitem__,
    "readiness_probe": _probe,
}
"""Fields whose domain value has another type than the field of the message."""
