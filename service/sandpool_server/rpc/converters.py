"""Domain values as messages of the public contract."""

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.duration_pb2 import Duration
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
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import (
    CommandEndReason,
    CommandResult,
    DiskEnforcement,
    EndReason,
    Member,
    PoolCondition,
    PoolFailure,
    PoolView,
    PullPolicy,
    PullProgress,
    Secret,
    StartKind,
    Template,
)
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
    FailureReason.NOT_READY: pool_pb2.POOL_ERROR_REASON_NOT_READY,
    FailureReason.ENGINE_UNREACHABLE: pool_pb2.POOL_ERROR_REASON_ENGINE_UNREACHABLE,
    FailureReason.DISK_FULL: pool_pb2.POOL_ERROR_REASON_DISK_FULL,
    FailureReason.LIMIT_UNSUPPORTED: pool_pb2.POOL_ERROR_REASON_LIMIT_UNSUPPORTED,
}
PULL_POLICIES = {
    PullPolicy.MISSING: pool_pb2.PULL_POLICY_MISSING,
    PullPolicy.ALWAYS: pool_pb2.PULL_POLICY_ALWAYS,
    PullPolicy.NEVER: pool_pb2.PULL_POLICY_NEVER,
}
DISK_ENFORCEMENTS = {
    None: pool_pb2.DISK_ENFORCEMENT_UNSPECIFIED,
    DiskEnforcement.ENGINE: pool_pb2.DISK_ENFORCEMENT_ENGINE,
    DiskEnforcement.WATCHED: pool_pb2.DISK_ENFORCEMENT_WATCHED,
}
SANDBOX_STATES = {
    MemberState.STARTING: sandbox_pb2.SANDBOX_STATE_STARTING,
    MemberState.ACTIVE: sandbox_pb2.SANDBOX_STATE_RUNNING,
    MemberState.REMOVING: sandbox_pb2.SANDBOX_STATE_TERMINATING,
    MemberState.GONE: sandbox_pb2.SANDBOX_STATE_TERMINATED,
}
STARTS = {
    StartKind.WARM: sandbox_pb2.SANDBOX_START_WARM,
    StartKind.COLD: sandbox_pb2.SANDBOX_START_COLD,
}
END_REASONS = {
    EndReason.DELETED: sandbox_pb2.SANDBOX_END_REASON_DELETED,
    EndReason.TIMED_OUT: sandbox_pb2.SANDBOX_END_REASON_TIMED_OUT,
    EndReason.EXITED: sandbox_pb2.SANDBOX_END_REASON_EXITED,
    EndReason.OOM_KILLED: sandbox_pb2.SANDBOX_END_REASON_OOM_KILLED,
    EndReason.DISK_EXCEEDED: sandbox_pb2.SANDBOX_END_REASON_DISK_EXCEEDED,
    EndReason.LOST: sandbox_pb2.SANDBOX_END_REASON_LOST,
    EndReason.FAILED: sandbox_pb2.SANDBOX_END_REASON_FAILED,
}
COMMAND_END_REASONS = {
    CommandEndReason.EXITED: sandbox_pb2.COMMAND_END_REASON_EXITED,
    CommandEndReason.SIGNALED: sandbox_pb2.COMMAND_END_REASON_SIGNALED,
    CommandEndReason.OOM_KILLED: sandbox_pb2.COMMAND_END_REASON_OOM_KILLED,
    CommandEndReason.TIMED_OUT: sandbox_pb2.COMMAND_END_REASON_TIMED_OUT,
    CommandEndReason.KILLED: sandbox_pb2.COMMAND_END_REASON_KILLED,
    CommandEndReason.IDLE_TIMED_OUT: sandbox_pb2.COMMAND_END_REASON_IDLE_TIMED_OUT,
    CommandEndReason.DISCONNECTED: sandbox_pb2.COMMAND_END_REASON_DISCONNECTED,
    CommandEndReason.SHUT_DOWN: sandbox_pb2.COMMAND_END_REASON_SHUT_DOWN,
}
WATCH_EVENT_TYPES = {
    WatchEvent.PRESENT: pool_service_pb2.WATCH_EVENT_TYPE_PRESENT,
    WatchEvent.CHANGED: pool_service_pb2.WATCH_EVENT_TYPE_CHANGED,
    WatchEvent.DELETED: pool_service_pb2.WATCH_EVENT_TYPE_DELETED,
    WatchEvent.BOOKMARK: pool_service_pb2.WATCH_EVENT_TYPE_BOOKMARK,
}


def pool_message(view: PoolView) -> pool_pb2.Pool:
    """A pool with its status."""
    pool = view.pool
    return pool_pb2.Pool(
        pool_id=pool.id,
        name=pool.name,
        template_name=pool.template_name,
        image=pool.spec.image,
        cpus=pool.spec.cpus,
        memory_mb=pool.spec.memory_mb,
        ephemeral_disk_mb=pool.spec.ephemeral_disk_mb,
        warm_containers=pool.warm_containers,
        max_containers=pool.max_containers,
        timeout_secs=pool.timeout_secs,
        secret_names=pool.spec.secret_names,
        entrypoint=pool.spec.entrypoint,
        paused=pool.paused,
        etag=etag_of(pool.version),
        create_time=timestamp(pool.create_time),
        update_time=timestamp(pool.update_time),
        status=_pool_status(view),
        env=dict(pool.spec.env),
        readiness_command=pool.spec.readiness_command,
        readiness_interval_secs=pool.spec.readiness_interval_secs,
        readiness_timeout_secs=pool.spec.readiness_timeout_secs,
        readiness_retries=pool.spec.readiness_retries,
        pull_policy=PULL_POLICIES[pool.pull_policy],
        image_check_secs=pool.image_check_secs,
        max_age_secs=pool.max_age_secs,
        drain=pool.drain,
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
        wanted=view.wanted,
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
    """A template."""
    return template_pb2.Template(
        template_id=template.id,
        name=template.name,
        image=template.spec.image,
        cpus=template.spec.cpus,
        memory_mb=template.spec.memory_mb,
        ephemeral_disk_mb=template.spec.ephemeral_disk_mb,
        timeout_secs=template.timeout_secs,
        secret_names=template.spec.secret_names,
        entrypoint=template.spec.entrypoint,
        etag=etag_of(template.version),
        create_time=timestamp(template.create_time),
        update_time=timestamp(template.update_time),
        env=dict(template.spec.env),
        readiness_command=template.spec.readiness_command,
        readiness_interval_secs=template.spec.readiness_interval_secs,
        readiness_timeout_secs=template.spec.readiness_timeout_secs,
        readiness_retries=template.spec.readiness_retries,
    )


def secret_message(secret: Secret) -> secret_pb2.Secret:
    """A secret's name and times: there is no more of it to show."""
    return secret_pb2.Secret(
        name=secret.name,
        create_time=timestamp(secret.create_time),
        update_time=timestamp(secret.update_time),
    )


def sandbox_message(member: Member) -> sandbox_pb2.Sandbox:
    """A claimed member as the sandbox it is. Raises `ValueError` for one that nobody has claimed: that is a bug."""
    claim, end = member.claim, member.end
    if claim is None:
        raise ValueError(f"member {member.id} is not a sandbox")
    sandbox = sandbox_pb2.Sandbox(
        sandbox_id=member.id,
        name=claim.name,
        state=SANDBOX_STATES[member.state],
        pool_id=member.pool_id,
        template_name=member.template_name,
        image=member.spec.image,
        cpus=member.spec.cpus,
        memory_mb=member.spec.memory_mb,
        ephemeral_disk_mb=member.spec.ephemeral_disk_mb,
        timeout_secs=claim.timeout_secs,
        secret_names=member.spec.secret_names,
        entrypoint=member.spec.entrypoint,
        metadata=claim.metadata,
        create_time=timestamp(claim.claim_time),
        expire_time=None if claim.expire_time is None else timestamp(claim.expire_time),
        etag=etag_of(member.version),
        env=dict(member.spec.env),
    )
    if member.state is not MemberState.STARTING:
        sandbox.start = STARTS[claim.start]
    if member.start_secs is not None:
        sandbox.start_duration.CopyFrom(_duration(member.start_secs))
    if end is not None:
        sandbox.end_reason = END_REASONS[end.reason]
        sandbox.end_message = _text(end.message)
        sandbox.end_time.CopyFrom(timestamp(end.time))
        if end.exit_code is not None:
            sandbox.exit_code = end.exit_code
    return sandbox


def sandbox_messages(members: Iterable[Member]) -> list[sandbox_pb2.Sandbox]:
    """Several sandboxes, in order."""
    return [sandbox_message(member) for member in members]


def run_command_answer(result: CommandResult) -> sandbox_service_pb2.RunCommandResponse:
    """How a command ended. The bytes of a stream are sent only where the text cannot stand for them."""
    stdout, stdout_bytes = _decoded(result.stdout)
    stderr, stderr_bytes = _decoded(result.stderr)
    answer = sandbox_service_pb2.RunCommandResponse(
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=stdout_bytes,
        stderr_bytes=stderr_bytes,
        reason=COMMAND_END_REASONS[result.reason],
        duration=_duration(result.duration_secs),
        stdout_dropped_bytes=result.stdout_dropped_bytes,
        stderr_dropped_bytes=result.stderr_dropped_bytes,
    )
    if result.signal is not None:
        answer.signal = result.signal
    elif result.exit_code is not None:
        answer.exit_code = result.exit_code
    return answer


def _decoded(output: bytes) -> tuple[str, bytes]:
    """The output as text, and as it was if that loses something."""
    try:
        return output.decode(), b""
    except UnicodeDecodeError:
        return output.decode(errors="replace"), output


def _text(message: str) -> str:
    """A message from an engine or a file name, made fit for UTF-8: lone surrogates become `?`."""
    return message.encode(errors="replace").decode()


def timestamp(moment: datetime) -> Timestamp:
    """A moment, aware, as the contract has it."""
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1_000_000_000))
    return duration
