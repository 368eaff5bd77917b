"""Conversion of pools, templates, secrets and sandboxes."""

from __future__ import annotations

from collections.abc import Iterable

from sandpool._core.convert_values import enum_value, moment, optional_seconds, seconds
from sandpool._models.container import ContainerSpec, ReadinessProbe
from sandpool._models.enums import (
    DiskEnforcement,
    ExitReason,
    PoolErrorReason,
    PoolEventType,
    PoolState,
    PullPolicy,
    SandboxState,
    StartType,
    TerminationReason,
)
from sandpool._models.pool import ImagePull, Pool, PoolError, PoolEvent, PoolStatus, Secret, Template
from sandpool._models.sandbox import CommandResult, SandboxInfo
from sandpool.v1 import (
    container_pb2,
    pool_pb2,
    pool_service_pb2,
    sandbox_pb2,
    sandbox_service_pb2,
    secret_pb2,
    template_pb2,
)


def container_spec(message: container_pb2.ContainerSpec) -> ContainerSpec:
    """Convert a container specification."""
    return ContainerSpec(
        image=message.image,
        cpus=message.cpus,
        memory_mb=message.memory_mb,
        ephemeral_disk_mb=message.ephemeral_disk_mb,
        env=dict(message.env),
        entrypoint=list(message.entrypoint) or None,
        secret_names=list(message.secret_names),
        pull_policy=enum_value(PullPolicy, container_pb2.PullPolicy.Name, "PULL_POLICY_", message.pull_policy),
        readiness_probe=readiness_probe(message.readiness_probe) if message.HasField("readiness_probe") else None,
    )


def readiness_probe(message: container_pb2.ReadinessProbe) -> ReadinessProbe:
    """Convert a readiness probe."""
    return ReadinessProbe(
        command=tuple(message.command),
        interval=optional_seconds(message, "interval"),
        timeout=optional_seconds(message, "timeout"),
        failure_threshold=message.failure_threshold if message.HasField("failure_threshold") else None,
    )


def pool(message: pool_pb2.Pool) -> Pool:
    """Convert a pool."""
    return Pool(
        pool_id=message.pool_id,
        name=message.name or None,
        template_name=message.template_name or None,
        spec=container_spec(message.spec),
        warm_containers=message.warm_containers if message.HasField("warm_containers") else None,
        max_containers=message.max_containers if message.HasField("max_containers") else None,
        timeout_secs=seconds(message.timeout),
        paused=message.paused,
        drained=message.drained,
        image_refresh_interval=optional_seconds(message, "image_refresh_interval"),
        warm_ttl=optional_seconds(message, "warm_ttl"),
        etag=message.etag,
        create_time=moment(message, "create_time"),
        update_time=moment(message, "update_time"),
        status=pool_status(message.status),
    )


def pools(messages: Iterable[pool_pb2.Pool]) -> list[Pool]:
    """Convert pools."""
    return [pool(message) for message in messages]


def pool_status(message: pool_pb2.PoolStatus) -> PoolStatus:
    """Convert the status of a pool."""
    disk = enum_value(DiskEnforcement, pool_pb2.DiskEnforcement.Name, "DISK_ENFORCEMENT_", message.disk_enforcement)
    return PoolStatus(
        state=enum_value(PoolState, pool_pb2.PoolState.Name, "POOL_STATE_", message.state),
        warm=message.warm,
        creating=message.creating,
        active=message.active,
        removing=message.removing,
        stale=message.stale,
        desired=message.desired,
        hits=message.hits,
        misses=message.misses,
        last_error=pool_error(message.last_error) if message.HasField("last_error") else None,
        image_digest=message.image_digest or None,
        image_pull=image_pull(message.image_pull) if message.HasField("image_pull") else None,
        disk_enforcement=disk if message.disk_enforcement else None,
        waiting=message.waiting,
    )


def image_pull(message: pool_pb2.ImagePull) -> ImagePull:
    """Convert the progress of an image pull."""
    return ImagePull(image=message.image, current_bytes=message.current_bytes, total_bytes=message.total_bytes)


def pool_error(message: pool_pb2.PoolError) -> PoolError:
    """Convert a failure to create a container."""
    return PoolError(
        reason=enum_value(PoolErrorReason, pool_pb2.PoolErrorReason.Name, "POOL_ERROR_REASON_", message.reason),
        message=message.message,
        time=moment(message, "time"),
        next_attempt_time=moment(message, "next_attempt_time"),
        consecutive_failures=message.consecutive_failures,
    )


def pool_event(message: pool_service_pb2.WatchPoolsResponse) -> PoolEvent:
    """Convert an event of a watch."""
    kind = enum_value(PoolEventType, pool_service_pb2.WatchEventType.Name, "WATCH_EVENT_TYPE_", message.type)
    return PoolEvent(type=kind, pool=pool(message.pool))


def template(message: template_pb2.Template) -> Template:
    """Convert a template."""
    return Template(
        template_id=message.template_id,
        name=message.name,
        spec=container_spec(message.spec),
        timeout_secs=seconds(message.timeout),
        etag=message.etag,
        create_time=moment(message, "create_time"),
        update_time=moment(message, "update_time"),
    )


def templates(messages: Iterable[template_pb2.Template]) -> list[Template]:
    """Convert templates."""
    return [template(message) for message in messages]


def secret(message: secret_pb2.Secret) -> Secret:
    """Convert a secret."""
    return Secret(
        name=message.name, create_time=moment(message, "create_time"), update_time=moment(message, "update_time")
    )


def secrets(messages: Iterable[secret_pb2.Secret]) -> list[Secret]:
    """Convert secrets."""
    return [secret(message) for message in messages]


def sandbox(message: sandbox_pb2.Sandbox) -> SandboxInfo:
    """Convert a sandbox."""
    start = enum_value(StartType, sandbox_pb2.StartType.Name, "START_TYPE_", message.start_type)
    reason = enum_value(
        TerminationReason, sandbox_pb2.TerminationReason.Name, "TERMINATION_REASON_", message.termination_reason
    )
    return SandboxInfo(
        sandbox_id=message.sandbox_id,
        name=message.name or None,
        state=enum_value(SandboxState, sandbox_pb2.SandboxState.Name, "SANDBOX_STATE_", message.state),
        pool_id=message.pool_id or None,
        template_name=message.template_name or None,
        spec=container_spec(message.spec),
        timeout_secs=seconds(message.timeout),
        metadata=dict(message.metadata),
        start_type=start if message.start_type else None,
        start_duration=optional_seconds(message, "start_duration"),
        create_time=moment(message, "create_time"),
        expire_time=moment(message, "expire_time"),
        end_time=moment(message, "end_time"),
        termination_reason=reason if message.termination_reason else None,
        termination_message=message.termination_message or None,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        etag=message.etag,
    )


def sandboxes(messages: Iterable[sandbox_pb2.Sandbox]) -> list[SandboxInfo]:
    """Convert sandboxes."""
    return [sandbox(message) for message in messages]


def command_result(message: sandbox_service_pb2.RunCommandResponse) -> CommandResult:
    """Convert the result of a command. The server sends the bytes of a stream only if they are not valid UTF-8."""
    return CommandResult(
        stdout=message.stdout,
        stderr=message.stderr,
        stdout_bytes=message.stdout_bytes or message.stdout.encode(),
        stderr_bytes=message.stderr_bytes or message.stderr.encode(),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        reason=enum_value(ExitReason, sandbox_pb2.ExitReason.Name, "EXIT_REASON_", message.reason),
        duration=seconds(message.duration),
        stdout_dropped_bytes=message.stdout_dropped_bytes,
        stderr_dropped_bytes=message.stderr_dropped_bytes,
    )
