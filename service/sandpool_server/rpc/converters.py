"""Conversion of domain values to messages of the public contract."""

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from sandpool.v1 import (
    pool_pb2,
    pool_service_pb2,
    sandbox_pb2,
    sandbox_service_pb2,
    secret_pb2,
    template_pb2,
)
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import (
    CommandResult,
    DiskEnforcement,
    ExitReason,
    Instance,
    PoolCondition,
    PoolFailure,
    PoolView,
    PullProgress,
    Secret,
    StartType,
    Template,
    TerminationReason,
)
from sandpool_server.rpc.specs import duration, duration_or_none, spec_message
from sandpool_server.usecases.etags import etag_of
from sandpool_server.usecases.values import WatchEvent

POOL_STATES = {
    PoolCondition.READY: pool_pb2.POOL_STATE_READY,
    PoolCondition.FILLING: pool_pb2.POOL_STATE_FILLING,
    PoolCondition.DEGRADED: pool_pb2.POOL_STATE_DEGRADED,
    PoolCondition.PAUSED: pool_pb2.POOL_STATE_PAUSED,
    PoolCondition.DRAINED: pool_pb2.POOL_STATE_DRAINED,
}
POOL_ERROR_REASONS = {
    FailureReason.IMAGE_NOT_FOUND: pool_pb2.POOL_ERROR_REASON_IMAGE_NOT_FOUND,
    FailureReason.PULL_FAILED: pool_pb2.POOL_ERROR_REASON_PULL_FAILED,
    FailureReason.START_FAILED: pool_pb2.POOL_ERROR_REASON_START_FAILED,
    FailureReason.READINESS_TIMEOUT: pool_pb2.POOL_ERROR_REASON_READINESS_TIMEOUT,
    FailureReason.ENGINE_UNREACHABLE: pool_pb2.POOL_ERROR_REASON_ENGINE_UNREACHABLE,
    FailureReason.DISK_FULL: pool_pb2.POOL_ERROR_REASON_DISK_FULL,
    FailureReason.LIMIT_UNSUPPORTED: pool_pb2.POOL_ERROR_REASON_LIMIT_UNSUPPORTED,
}
DISK_ENFORCEMENTS = {
    None: pool_pb2.DISK_ENFORCEMENT_UNSPECIFIED,
    DiskEnforcement.ENGINE: pool_pb2.DISK_ENFORCEMENT_ENGINE,
    DiskEnforcement.BEST_EFFORT: pool_pb2.DISK_ENFORCEMENT_BEST_EFFORT,
}
SANDBOX_STATES = {
    InstanceState.STARTING: sandbox_pb2.SANDBOX_STATE_STARTING,
    InstanceState.ACTIVE: sandbox_pb2.SANDBOX_STATE_RUNNING,
    InstanceState.REMOVING: sandbox_pb2.SANDBOX_STATE_TERMINATING,
    InstanceState.REMOVED: sandbox_pb2.SANDBOX_STATE_TERMINATED,
}
START_TYPES = {
    StartType.WARM: sandbox_pb2.START_TYPE_WARM,
    StartType.COLD: sandbox_pb2.START_TYPE_COLD,
}
TERMINATION_REASONS = {
    TerminationReason.DELETED: sandbox_pb2.TERMINATION_REASON_DELETED,
    TerminationReason.TIMED_OUT: sandbox_pb2.TERMINATION_REASON_TIMED_OUT,
    TerminationReason.EXITED: sandbox_pb2.TERMINATION_REASON_EXITED,
    TerminationReason.OOM_KILLED: sandbox_pb2.TERMINATION_REASON_OOM_KILLED,
    TerminationReason.DISK_EXCEEDED: sandbox_pb2.TERMINATION_REASON_DISK_EXCEEDED,
    TerminationReason.LOST: sandbox_pb2.TERMINATION_REASON_LOST,
    TerminationReason.FAILED: sandbox_pb2.TERMINATION_REASON_FAILED,
}
EXIT_REASONS = {
    ExitReason.EXITED: sandbox_pb2.EXIT_REASON_EXITED,
    ExitReason.SIGNALED: sandbox_pb2.EXIT_REASON_SIGNALED,
    ExitReason.OOM_KILLED: sandbox_pb2.EXIT_REASON_OOM_KILLED,
    ExitReason.TIMED_OUT: sandbox_pb2.EXIT_REASON_TIMED_OUT,
    ExitReason.KILLED: sandbox_pb2.EXIT_REASON_KILLED,
    ExitReason.IDLE_TIMED_OUT: sandbox_pb2.EXIT_REASON_IDLE_TIMED_OUT,
    ExitReason.DISCONNECTED: sandbox_pb2.EXIT_REASON_DISCONNECTED,
    ExitReason.SHUT_DOWN: sandbox_pb2.EXIT_REASON_SHUT_DOWN,
}
WATCH_EVENT_TYPES = {
    WatchEvent.CURRENT: pool_service_pb2.WATCH_EVENT_TYPE_CURRENT,
    WatchEvent.CHANGED: pool_service_pb2.WATCH_EVENT_TYPE_CHANGED,
    WatchEvent.DELETED: pool_service_pb2.WATCH_EVENT_TYPE_DELETED,
    WatchEvent.BOOKMARK: pool_service_pb2.WATCH_EVENT_TYPE_BOOKMARK,
}


def pool_message(view: PoolView) -> pool_pb2.Pool:
    """Return a pool with its status."""
    pool = view.pool
    return pool_pb2.Pool(
        pool_id=pool.id,
        name=pool.name,
        spec=spec_message(pool.spec),
        template_name=pool.template_name,
        warm_containers=pool.warm_containers,
        max_containers=pool.max_containers,
        timeout=duration_or_none(pool.timeout_secs),
        paused=pool.paused,
        drained=pool.drained,
        image_refresh_interval=duration_or_none(pool.image_refresh_interval_secs),
        warm_ttl=duration_or_none(pool.warm_ttl_secs),
        etag=etag_of(pool.version),
        create_time=timestamp(pool.create_time),
        update_time=timestamp(pool.update_time),
        status=_pool_status(view),
    )


def _pool_status(view: PoolView) -> pool_pb2.PoolStatus:
    counts, failure = view.counts, view.pool.failure
    return pool_pb2.PoolStatus(
        state=POOL_STATES[view.condition],
        warm=counts.warm,
        creating=counts.creating + counts.starting,
        active=counts.active,
        removing=counts.removing,
        stale=counts.stale,
        desired=view.desired,
        hits=view.pool.hits,
        misses=view.pool.misses,
        last_error=None if failure is None else _pool_error(failure, attempting=counts.creating > 0),
        image_digest=view.pool.image_digest,
        image_pull=None if view.pull is None else _image_pull(view.pull),
        disk_enforcement=DISK_ENFORCEMENTS[view.disk_enforcement],
        waiting=view.waiting,
    )


def _pool_error(failure: PoolFailure, attempting: bool) -> pool_pb2.PoolError:
    return pool_pb2.PoolError(
        reason=POOL_ERROR_REASONS[failure.reason],
        message=_text(failure.message),
        time=timestamp(failure.time),
        next_attempt_time=None if attempting else timestamp(failure.next_attempt_time),
        consecutive_failures=failure.consecutive,
    )


def _image_pull(pull: PullProgress) -> pool_pb2.ImagePull:
    return pool_pb2.ImagePull(image=pull.image, current_bytes=pull.current, total_bytes=pull.total)


def template_message(template: Template) -> template_pb2.Template:
    """Return a template."""
    return template_pb2.Template(
        template_id=template.id,
        name=template.name,
        spec=spec_message(template.spec),
        timeout=duration_or_none(template.timeout_secs),
        etag=etag_of(template.version),
        create_time=timestamp(template.create_time),
        update_time=timestamp(template.update_time),
    )


def secret_message(secret: Secret) -> secret_pb2.Secret:
    """Return a secret without its value."""
    return secret_pb2.Secret(
        name=secret.name,
        create_time=timestamp(secret.create_time),
        update_time=timestamp(secret.update_time),
    )


def sandbox_message(instance: Instance) -> sandbox_pb2.Sandbox:
    """Return the sandbox of a claimed instance. Raises `ValueError` if the instance is not claimed, which is a bug."""
    claim, end = instance.claim, instance.end
    if claim is None:
        raise ValueError(f"instance {instance.id} is not a sandbox")
    sandbox = sandbox_pb2.Sandbox(
        sandbox_id=instance.id,
        name=claim.name,
        state=SANDBOX_STATES[instance.state],
        pool_id=instance.pool_id,
        template_name=instance.template_name,
        spec=spec_message(instance.spec),
        timeout=duration_or_none(claim.timeout_secs),
        metadata=claim.metadata,
        create_time=timestamp(claim.claim_time),
        expire_time=None if claim.expire_time is None else timestamp(claim.expire_time),
        etag=etag_of(instance.version),
    )
    if instance.state is not InstanceState.STARTING:
        sandbox.start_type = START_TYPES[claim.start_type]
    if instance.start_secs is not None:
        sandbox.start_duration.CopyFrom(duration(instance.start_secs))
    if end is not None:
        sandbox.termination_reason = TERMINATION_REASONS[end.reason]
        sandbox.termination_message = _text(end.message)
        sandbox.end_time.CopyFrom(timestamp(end.time))
        if end.exit_code is not None:
            sandbox.exit_code = end.exit_code
    return sandbox


def sandbox_messages(instances: Iterable[Instance]) -> list[sandbox_pb2.Sandbox]:
    """Return several sandboxes in the same order."""
    return [sandbox_message(instance) for instance in instances]


def run_command_response(result: CommandResult) -> sandbox_service_pb2.RunCommandResponse:
    """Return the result of a command. The fields with bytes are set only if the output is not valid UTF-8."""
    stdout, stdout_bytes = _decoded(result.stdout)
    stderr, stderr_bytes = _decoded(result.stderr)
    response = sandbox_service_pb2.RunCommandResponse(
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=stdout_bytes,
        stderr_bytes=stderr_bytes,
        reason=EXIT_REASONS[result.reason],
        duration=duration(result.duration_secs),
        stdout_dropped_bytes=result.stdout_dropped_bytes,
        stderr_dropped_bytes=result.stderr_dropped_bytes,
    )
    if result.signal is not None:
        response.signal = result.signal
    elif result.exit_code is not None:
        response.exit_code = result.exit_code
    return response


def _decoded(output: bytes) -> tuple[str, bytes]:
    """Return the output as text, and also as bytes if it is not valid UTF-8."""
    try:
        return output.decode(), b""
    except UnicodeDecodeError:
        return output.decode(errors="replace"), output


def _text(message: str) -> str:
    """Return a message in valid UTF-8. Lone surrogates, from engine messages or file names, become `?`."""
    return message.encode(errors="replace").decode()


def timestamp(moment: datetime) -> Timestamp:
    """Return the timestamp of a timezone-aware datetime."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message
