"""Messages about the inside of a sandbox to what the client gives back."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from sandpool._core.convert import moment, span, word
from sandpool._core.enums import (
    CommandEndReason,
    FileChange,
    FileType,
    OutputStream,
    ProcessHealth,
    ProcessState,
    RestartPolicy,
)
from sandpool._core.inside import (
    ExposedPort,
    FileEvent,
    FileInfo,
    KeptOutput,
    LogEntry,
    ProcessEnd,
    ProcessInfo,
    SandboxStats,
    TerminalSize,
)
from sandpool.v1 import file_pb2, file_service_pb2, monitor_pb2, port_pb2, process_pb2, sandbox_pb2


def process(message: process_pb2.Process) -> ProcessInfo:
    """A process."""
    policy = word(RestartPolicy, process_pb2.RestartPolicy.Name, "RESTART_POLICY_", message.restart_policy)
    health = word(ProcessHealth, process_pb2.ProcessHealth.Name, "PROCESS_HEALTH_", message.health)
    size = message.terminal
    return ProcessInfo(
        process_id=message.process_id,
        name=message.name,
        state=word(ProcessState, process_pb2.ProcessState.Name, "PROCESS_STATE_", message.state),
        pid=message.pid,
        command=message.command,
        argv=tuple(message.argv),
        working_dir=message.working_dir,
        user=message.user,
        terminal=TerminalSize(size.rows, size.cols) if message.HasField("terminal") else None,
        stdin_open=message.stdin_open,
        stdin_bytes=message.stdin_bytes,
        stdout=KeptOutput(message.stdout.begin, message.stdout.end),
        stderr=KeptOutput(message.stderr.begin, message.stderr.end),
        start_time=_moment(message.start_time),
        end_time=_moment(message.end_time),
        end=process_end(message.end) if message.HasField("end") else None,
        attached_clients=message.attached_clients,
        restarts=message.restarts,
        restart_policy=policy if message.restart_policy else None,
        health=health if message.health else None,
        health_message=message.health_message,
        expire_time=_moment(message.expire_time),
    )


def process_end(message: process_pb2.ProcessEnd) -> ProcessEnd:
    """How a process ended."""
    return ProcessEnd(
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        reason=word(CommandEndReason, sandbox_pb2.CommandEndReason.Name, "COMMAND_END_REASON_", message.reason),
    )


def output_stream(number: int) -> OutputStream:
    """Which stream."""
    return word(OutputStream, process_pb2.OutputStream.Name, "OUTPUT_STREAM_", number)


def file_info(message: file_pb2.FileInfo) -> FileInfo:
    """What a path names."""
    return FileInfo(
        path=message.path,
        type=word(FileType, file_pb2.FileType.Name, "FILE_TYPE_", message.type),
        size=message.size,
        mode=message.mode,
        uid=message.uid,
        gid=message.gid,
        user=message.user,
        group=message.group,
        modify_time=_moment(message.modify_time),
        link_target=message.link_target,
        etag=message.etag,
    )


def file_event(message: file_service_pb2.WatchFilesResponse) -> FileEvent | None:
    """A change; None for a message that only says that the watch goes on."""
    if not message.change:
        return None
    return FileEvent(word(FileChange, file_pb2.FileChange.Name, "FILE_CHANGE_", message.change), message.path)


def exposed_port(message: port_pb2.ExposedPort) -> ExposedPort:
    """A port that is exposed."""
    return ExposedPort(port=message.port, url=message.url, create_time=_moment(message.create_time))


def log_entry(message: monitor_pb2.LogEntry, lost_before: int = 0) -> LogEntry:
    """A line of a log, and how many before it are missing."""
    return LogEntry(
        sequence=message.sequence,
        time=_moment(message.time),
        source=message.source,
        stream=output_stream(message.stream),
        text=message.text,
        partial=message.partial,
        lost_before=lost_before,
    )


def stats(message: monitor_pb2.SandboxStats) -> SandboxStats:
    """What a sandbox uses."""
    return SandboxStats(
        time=_moment(message.time),
        cpu_time=span(message.cpu_time),
        cpus_used=message.cpus_used,
        cpus=message.cpus,
        memory_bytes=message.memory_bytes,
        memory_limit_bytes=message.memory_limit_bytes,
        disk_bytes=message.disk_bytes,
        disk_limit_bytes=message.disk_limit_bytes,
        network_received_bytes=message.network_received_bytes,
        network_sent_bytes=message.network_sent_bytes,
        processes=message.processes,
        processes_limit=message.processes_limit,
    )


def _moment(value: Timestamp) -> datetime | None:
    """An instant; None for one that is absent: no time of these is that of the epoch."""
    return moment(value) if value.seconds or value.nanos else None
