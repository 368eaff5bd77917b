"""Logs of entrypoints and services, and metrics of sandboxes, on containers."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sandpool import SandboxClient
from sandpool.v1 import monitor_service_pb2 as pb
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as processes
from sandpool_server.gen.v1.monitor_service_pb2_grpc import MonitorServiceStub
from sandpool_server.gen.v1.process_service_pb2_grpc import ProcessServiceStub
from tests.support.durations import seconds
from tests.support.engine_view import EngineView
from tests.support.pool_instances import container
from tests.support.process_box import Box
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

SECS = 60.0
TALKER = "i=0; while true; do i=$((i+1)); echo line $i; echo error $i >&2; sleep 0.1; done"
MIB = 1 << 20


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as made:
        yield made


@pytest.fixture(scope="module")
def monitor(channel: grpc.Channel) -> MonitorServiceStub:
    return MonitorServiceStub(channel)


def box_of(server: ServerProcess, channel: grpc.Channel, **fields: object) -> Box:
    return Box(SandboxClient(server.address), ProcessServiceStub(channel), **fields)


def test_returns_the_log_of_the_entrypoint(
    server: ServerProcess, channel: grpc.Channel, monitor: MonitorServiceStub, engine: EngineView
) -> None:
    box = box_of(server, channel, image="busybox:latest", entrypoint=["sh", "-c", TALKER])
    following = monitor.ReadLogs(pb.ReadLogsRequest(sandbox_id=box.id, follow=True), timeout=SECS)
    seen = []
    for response in following:
        seen += response.entries
        if len(seen) >= 20:
            break
    following.cancel()
    assert [entry.sequence for entry in seen] == list(range(1, len(seen) + 1))
    assert {entry.source for entry in seen} == {"entrypoint"}
    lines = [entry.text for entry in seen if entry.stream == process_pb2.OUTPUT_STREAM_STDOUT]
    errors = [entry.text for entry in seen if entry.stream == process_pb2.OUTPUT_STREAM_STDERR]
    assert lines == [f"line {number + 1}" for number in range(len(lines))]
    assert errors == [f"error {number + 1}" for number in range(len(errors))]
    printed = engine.api.logs(container(box.id)).decode()
    assert "line 1\n" in printed, "the log of the engine contains the lines too"

    last = read(monitor, box.id, tail=3)
    assert len(last) == 3
    assert last[-1].sequence >= seen[-1].sequence
    assert [entry.sequence for entry in read(monitor, box.id, after_sequence=5)][:2] == [6, 7]
    half = seen[10].time.ToDatetime(UTC)
    assert read(monitor, box.id, since=half)[0].sequence in (seen[10].sequence, seen[9].sequence, seen[11].sequence)
    assert read(monitor, box.id, sources=["other"]) == []


def read(monitor: MonitorServiceStub, sandbox_id: str, since: datetime | None = None, **fields: object) -> list:
    request = pb.ReadLogsRequest(sandbox_id=sandbox_id, **fields)
    if since is not None:
        moment = Timestamp()
        moment.FromDatetime(since)
        request.since.CopyFrom(moment)
    return [entry for response in monitor.ReadLogs(request, timeout=SECS) for entry in response.entries]


def test_returns_the_log_of_a_service(
    server: ServerProcess, channel: grpc.Channel, monitor: MonitorServiceStub
) -> None:
    box = box_of(server, channel, image="busybox:latest")
    service = processes.Service(name="web")
    box.start("web-1", command="echo begins; printf 'no end'", service=service)
    box.seen("web-1")
    box.start("plain", command="echo not a service")
    box.seen("plain")
    assert [(entry.source, entry.text) for entry in read(monitor, box.id)] == [("web", "begins"), ("web", "no end")]
    assert len(read(monitor, box.id, sources=["web"])) == 2


def test_logs_survive_a_kill_of_the_server(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        with SandboxClient(server.address) as client:
            sandbox_id = client.create(image="busybox:latest", entrypoint=["sh", "-c", TALKER]).sandbox_id
        with grpc.insecure_channel(server.address) as channel:
            before = read(MonitorServiceStub(channel), sandbox_id)
        server.kill()
        server.start()
        with grpc.insecure_channel(server.address) as channel:
            request = pb.ReadLogsRequest(sandbox_id=sandbox_id)
            responses = MonitorServiceStub(channel).ReadLogs(request, timeout=SECS, wait_for_ready=True)
            after = [entry for response in responses for entry in response.entries]
    assert after[: len(before)] == before
    assert len(after) > len(before)


def test_returns_the_metrics_of_a_sandbox(
    server: ServerProcess, channel: grpc.Channel, monitor: MonitorServiceStub
) -> None:
    image = "python:3.11-slim"
    box = box_of(server, channel, image=image, cpus=0.5, memory_mb=256, ephemeral_disk_mb=512)
    idle = metrics_of(monitor, box.id)
    assert (idle.cpus, idle.memory_limit_bytes, idle.disk_limit_bytes) == (0.5, 256 * MIB, 512 * MIB)
    assert 0 < idle.processes < idle.processes_limit
    busy = (
        "import os, time; keep = bytearray(os.urandom(1)) * (64 << 20)\n"
        "open('/tmp/file', 'wb').write(bytes(32 << 20))\n"
        "print('ready', flush=True)\nwhile True: pass"
    )
    box.start("busy", "python3", "-c", busy)
    for response in box.attach("busy"):
        if b"ready" in response.event.output.data:
            break
    watching = monitor.WatchMetrics(pb.WatchMetricsRequest(sandbox_id=box.id, interval=seconds(0.5)), timeout=SECS)
    for response in watching:
        used = response.metrics
        if used.cpus_used > 0.4 and used.HasField("disk_bytes") and used.disk_bytes >= 32 * MIB:
            break
    watching.cancel()
    assert 0.4 < used.cpus_used < 0.7, "the quota is not exceeded"
    assert used.memory_bytes - idle.memory_bytes > 60 * MIB
    assert used.processes > idle.processes
    assert used.cpu_time.ToTimedelta() > idle.cpu_time.ToTimedelta()
    assert used.disk_bytes < 64 * MIB


def metrics_of(monitor: MonitorServiceStub, sandbox_id: str) -> object:
    return monitor.GetMetrics(pb.GetMetricsRequest(sandbox_id=sandbox_id), timeout=SECS).metrics


def test_in_an_image_of_one_static_binary(
    server: ServerProcess, channel: grpc.Channel, monitor: MonitorServiceStub, bare_image: str
) -> None:
    entrypoint = ["/busybox", "sh", "-c", "echo from the entrypoint; exec /busybox sleep 4711"]
    box = box_of(server, channel, image=bare_image, entrypoint=entrypoint)
    box.start("web-1", "/busybox", "echo", "from the service", service=processes.Service(name="web"))
    box.seen("web-1")
    assert {(entry.source, entry.text) for entry in read(monitor, box.id)} == {
        ("entrypoint", "from the entrypoint"),
        ("web", "from the service"),
    }
    before = metrics_of(monitor, box.id)
    overflow = processes.OUTPUT_OVERFLOW_WAIT  # the process waits for a client that reads the output later
    box.start("much", "/busybox", "head", "-c", "8388608", "/dev/zero", output_overflow=overflow)
    assert len(box.seen("much").stdout) == 8388608
    after = metrics_of(monitor, box.id)
    assert after.network_sent_bytes - before.network_sent_bytes > 8388608
    assert (before.cpus, before.memory_limit_bytes) == (1, 512 * MIB)
