"""Messages of the contract to what the client gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sandpool._core.enums import (
    CommandEndReason,
    DiskEnforcement,
    PoolErrorReason,
    PoolEventType,
    PoolState,
    PullPolicy,
    SandboxEndReason,
    SandboxStart,
    SandboxState,
    Word,
)
from sandpool._core.model import (
    CommandResult,
    ImagePull,
    Pool,
    PoolError,
    PoolEvent,
    PoolStatus,
    SandboxInfo,
    Secret,
    Template,
)
from sandpool.v1 import pool_pb2, pool_service_pb2, sandbox_pb2, sandbox_service_pb2, secret_pb2, template_pb2

WordT = TypeVar("WordT", bound=Word)


def word(kind: type[WordT], name: Callable[[Any], str], prefix: str, number: int) -> WordT:
    """The enum member for a number of the contract; UNKNOWN for one that this client does not know."""
    try:
        return kind(name(number).removeprefix(prefix).lower())
    except ValueError:
        return kind("unknown")


def moment(value: Timestamp) -> datetime:
    """An instant in UTC."""
    return value.ToDatetime(tzinfo=timezone.utc)


def span(value: Duration) -> timedelta:
    """A length of time, to the microsecond."""
    return value.ToTimedelta()


def pool(message: pool_pb2.Pool) -> Pool:
    """A pool."""
    return Pool(
        pool_id=message.pool_id,
        name=message.name,
        template_name=message.template_name,
        image=message.image,
        cpus=message.cpus,
        memory_mb=message.memory_mb,
        ephemeral_disk_mb=message.ephemeral_disk_mb,
        warm_containers=message.warm_containers,
        max_containers=message.max_containers if message.HasField("max_containers") else None,
        timeout_secs=message.timeout_secs,
        secret_names=tuple(message.secret_names),
        entrypoint=tuple(message.entrypoint),
        env=dict(message.env),
        readiness_command=tuple(message.readiness_command),
        readiness_interval_secs=message.readiness_interval_secs,
        readiness_timeout_secs=message.readiness_timeout_secs,
        readiness_retries=message.readiness_retries,
        pull_policy=word(PullPolicy, pool_pb2.PullPolicy.Name, "PULL_POLICY_", message.pull_policy),
        image_check_secs=message.image_check_secs,
        max_age_secs=message.max_age_secs,
        paused=message.paused,
        drain=message.drain,
        etag=message.etag,
        create_time=moment(message.create_time) if message.HasField("create_time") else None,
        update_time=moment(message.update_time) if message.HasField("update_time") else None,
        status=pool_status(message.status),
    )


def pools(messages: Iterable[pool_pb2.Pool]) -> list[Pool]:
    """Pools."""
    return [pool(message) for message in messages]


def pool_status(message: pool_pb2.PoolStatus) -> PoolStatus:
    """A pool's status."""
    disk = word(DiskEnforcement, pool_pb2.DiskEnforcement.Name, "DISK_ENFORCEMENT_", message.disk_enforcement)
    return PoolStatus(
        state=word(PoolState, pool_pb2.PoolState.Name, "POOL_STATE_", message.state),
        warm=message.warm,
        creating=message.creating,
        active=message.active,
        removing=message.removing,
        stale=message.stale,
        wanted=message.wanted,
        hits=message.hits,
        misses=message.misses,
        last_error=pool_error(message.last_error) if message.HasField("last_error") else None,
        image_digest=message.image_digest,
        image_pull=image_pull(message.image_pull) if message.HasField("image_pull") else None,
        disk_enforcement=disk if message.disk_enforcement else None,
        waiting=message.waiting,
    )


def image_pull(message: pool_pb2.ImagePull) -> ImagePull:
    """A pull under way."""
    return ImagePull(image=message.image, current_bytes=message.current_bytes, total_bytes=message.total_bytes)


def pool_error(message: pool_pb2.PoolError) -> PoolError:
    """A pool's last failure."""
    return PoolError(
        reason=word(PoolErrorReason, pool_pb2.PoolErrorReason.Name, "POOL_ERROR_REASON_", message.reason),
        message=message.message,
        time=moment(message.time) if message.HasField("time") else None,
        next_attempt_time=moment(message.next_attempt_time) if message.HasField("next_attempt_time") else None,
        consecutive_failures=message.consecutive_failures,
    )


def pool_event(message: pool_service_pb2.WatchPoolsResponse) -> PoolEvent:
    """One event of a watch."""
    kind = word(PoolEventType, pool_service_pb2.WatchEventType.Name, "WATCH_EVENT_TYPE_", message.type)
    return PoolEvent(type=kind, pool=pool(message.pool))


def template(message: template_pb2.Template) -> Template:
    """A template."""
    return Template(
        template_id=message.template_id,
        name=message.name,
        image=message.image,
        cpus=message.cpus,
        memory_mb=message.memory_mb,
        ephemeral_disk_mb=message.ephemeral_disk_mb,
        timeout_secs=message.timeout_secs,
        secret_names=tuple(message.secret_names),
        entrypoint=tuple(message.entrypoint),
        env=dict(message.env),
        readiness_command=tuple(message.readiness_command),
        readiness_interval_secs=message.readiness_interval_secs,
        readiness_timeout_secs=message.readiness_timeout_secs,
        readiness_retries=message.readiness_retries,
        etag=message.etag,
        create_time=moment(message.create_time) if message.HasField("create_time") else None,
        update_time=moment(message.update_time) if message.HasField("update_time") else None,
    )


def templates(messages: Iterable[template_pb2.Template]) -> list[Template]:
    """Templates."""
    return [template(message) for message in messages]


def secret(message: secret_pb2.Secret) -> Secret:
    """A secret."""
    return Secret(
        name=message.name,
        create_time=moment(message.create_time) if message.HasField("create_time") else None,
        update_time=moment(message.update_time) if message.HasField("update_time") else None,
    )


def secrets(messages: Iterable[secret_pb2.Secret]) -> list[Secret]:
    """Secrets."""
    return [secret(message) for message in messages]


def sandbox(message: sandbox_pb2.Sandbox) -> SandboxInfo:
    """A sandbox."""
    start = word(SandboxStart, sandbox_pb2.SandboxStart.Name, "SANDBOX_START_", message.start)
    end = word(SandboxEndReason, sandbox_pb2.SandboxEndReason.Name, "SANDBOX_END_REASON_", message.end_reason)
    return SandboxInfo(
        sandbox_id=message.sandbox_id,
        name=message.name,
        state=word(SandboxState, sandbox_pb2.SandboxState.Name, "SANDBOX_STATE_", message.state),
        pool_id=message.pool_id,
        template_name=message.template_name,
        image=message.image,
        cpus=message.cpus,
        memory_mb=message.memory_mb,
        ephemeral_disk_mb=message.ephemeral_disk_mb,
        timeout_secs=message.timeout_secs,
        secret_names=tuple(message.secret_names),
        entrypoint=tuple(message.entrypoint),
        env=dict(message.env),
        metadata=dict(message.metadata),
        start=start if message.start else None,
        start_duration=span(message.start_duration) if message.HasField("start_duration") else None,
        create_time=moment(message.create_time) if message.HasField("create_time") else None,
        expire_time=moment(message.expire_time) if message.HasField("expire_time") else None,
        end_time=moment(message.end_time) if message.HasField("end_time") else None,
        end_reason=end if message.end_reason else None,
        end_message=message.end_message,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        etag=message.etag,
    )


def sandboxes(messages: Iterable[sandbox_pb2.Sandbox]) -> list[SandboxInfo]:
    """Sandboxes."""
    return [sandbox(message) for message in messages]


def command_result(message: sandbox_service_pb2.RunCommandResponse) -> CommandResult:
    """How a command ended. The bytes of a stream are sent only where they are not UTF-8."""
    return CommandResult(
        stdout=message.stdout,
        stderr=message.stderr,
        stdout_bytes=message.stdout_bytes or message.stdout.encode(),
        stderr_bytes=message.stderr_bytes or message.stderr.encode(),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        reason=word(CommandEndReason, sandbox_pb2.CommandEndReason.Name, "COMMAND_END_REASON_", message.reason),
        duration=span(message.duration),
        stdout_dropped_bytes=message.stdout_dropped_bytes,
        stderr_dropped_bytes=message.stderr_dropped_bytes,
    )
