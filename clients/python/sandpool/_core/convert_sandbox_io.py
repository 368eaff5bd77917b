"""Conversion of processes, files, ports, logs and metrics of a sandbox."""

from __future__ import annotations

from sandpool._core.convert_values import enum_value, moment, seconds
from sandpool._models.enums import (
    ExitReason,
    FileChange,
    FileType,
    OutputStream,
    ProcessHealth,
    ProcessState,
    RestartPolicy,
)
from sandpool._models.file import FileEvent, FileInfo
from sandpool._models.monitor import ExposedPort, LogEntry, SandboxMetrics
from sandpool._models.process import OutputBuffer, ProcessExit, ProcessInfo, TerminalSize
from sandpool.v1 import file_pb2, file_service_pb2, monitor_pb2, port_pb2, process_pb2, sandbox_pb2


def process(message: process_pb2.Process) -> ProcessInfo:
    """Convert a process."""
    policy = enum_value(RestartPolicy, process_pb2.RestartPolicy.Name, "RESTART_POLICY_", message.restart_policy)
    health = enum_value(ProcessHealth, process_pb2.ProcessHealth.Name, "PROCESS_HEALTH_", message.health)
    size = message.terminal
    return ProcessInfo(
        process_id=message.process_id,
        name=message.name or None,
        state=enum_value(ProcessState, process_pb2.ProcessState.Name, "PROCESS_STATE_", message.state),
        pid=message.pid or None,
        command=message.command or None,
        argv=tuple(message.argv) or None,
        cwd=message.working_dir or None,
        user=message.user or None,
        terminal=TerminalSize(size.rows, size.cols) if message.HasField("terminal") else None,
        stdin_open=message.stdin_open,
        stdin_bytes=message.stdin_bytes,
        stdout=output_buffer(message.stdout),
        stderr=output_buffer(message.stderr),
        start_time=moment(message, "start_time"),
        end_time=moment(message, "end_time"),
        exit=process_exit(message.exit) if message.HasField("exit") else None,
        attached_clients=message.attached_clients,
        restarts=message.restarts,
        restart_policy=policy if message.restart_policy else None,
        health=health if message.health else None,
        health_message=message.health_message or None,
        expire_time=moment(message, "expire_time"),
    )


def output_buffer(message: process_pb2.OutputBuffer) -> OutputBuffer:
    """Convert the range of a stream that is buffered."""
    return OutputBuffer(message.start_offset, message.end_offset)


def process_exit(message: process_pb2.ProcessExit) -> ProcessExit:
    """Convert how a process exited."""
    return ProcessExit(
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        reason=enum_value(ExitReason, sandbox_pb2.ExitReason.Name, "EXIT_REASON_", message.reason),
    )


def output_stream(number: int) -> OutputStream:
    """Convert an output stream."""
    return enum_value(OutputStream, process_pb2.OutputStream.Name, "OUTPUT_STREAM_", number)


def file_info(message: file_pb2.FileInfo) -> FileInfo:
    """Convert a file."""
    return FileInfo(
        path=message.path,
        type=enum_value(FileType, file_pb2.FileType.Name, "FILE_TYPE_", message.type),
        size=message.size,
        mode=message.mode,
        uid=message.uid,
        gid=message.gid,
        user=message.user or None,
        group=message.group or None,
        modify_time=moment(message, "modify_time"),
        link_target=message.link_target or None,
        etag=message.etag,
    )


def file_event(message: file_service_pb2.WatchFilesResponse) -> FileEvent | None:
    """Convert a change; None for a message without a change, which shows that the watch is active."""
    if not message.change:
        return None
    return FileEvent(enum_value(FileChange, file_pb2.FileChange.Name, "FILE_CHANGE_", message.change), message.path)


def exposed_port(message: port_pb2.ExposedPort) -> ExposedPort:
    """Convert an exposed port."""
    return ExposedPort(port=message.port, url=message.url, create_time=moment(message, "create_time"))


def log_entry(message: monitor_pb2.LogEntry, dropped_entries: int = 0) -> LogEntry:
    """Convert a log entry. `dropped_entries` is the number of entries that are missing directly before it."""
    return LogEntry(
        sequence=message.sequence,
        time=moment(message, "time"),
        source=message.source,
        stream=output_stream(message.stream),
        text=message.text,
        partial=message.partial,
        dropped_entries=dropped_entries,
    )


def metrics(message: monitor_pb2.SandboxMetrics) -> SandboxMetrics:
    """Convert the metrics of a sandbox."""
    return SandboxMetrics(
        time=moment(message, "time"),
        cpu_time=seconds(message.cpu_time),
        cpus_used=message.cpus_used,
        cpus=message.cpus,
        memory_bytes=message.memory_bytes,
        memory_limit_bytes=message.memory_limit_bytes,
        disk_bytes=message.disk_bytes if message.HasField("disk_bytes") else None,
        disk_limit_bytes=message.disk_limit_bytes,
        network_received_bytes=message.network_received_bytes,
        network_sent_bytes=message.network_sent_bytes,
        processes=message.processes,
        processes_limit=message.processes_limit,
    )
