"""Services in containers: restarts, health checks and names."""

from collections.abc import Iterator

import grpc
import pytest

from sandpool import SandboxClient
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as pb
from sandpool_server.gen.v1.process_service_pb2_grpc import ProcessServiceStub
from tests.support.durations import seconds
from tests.support.process_box import SECS, Box
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine


SERVERS = {
    "busybox:latest": ("sh", "-c", "echo begins; exec httpd -f -p 8080 -h /etc"),
    "python:3.11-slim": ("sh", "-c", "echo begins; exec python3 -m http.server 8080 -d /etc"),
    "bare": ("/busybox", "sh", "-c", "echo begins; exec /busybox httpd -f -p 8080 -h /"),
}
"""A web server that prints a line when it starts, for each image."""
PAGES = {"busybox:latest": "/passwd", "python:3.11-slim": "/passwd", "bare": "/busybox"}
"""A file that the web server serves, for each image."""


@pytest.fixture(scope="module", params=SERVERS)
def image(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def box(server: ServerProcess, bare_image: str, image: str) -> Iterator[Box]:
    with grpc.insecure_channel(server.address) as channel, SandboxClient(server.address) as client:
        yield Box(client, ProcessServiceStub(channel), bare_image if image == "bare" else image)


@pytest.fixture(scope="module")
def busybox(server: ServerProcess) -> Iterator[Box]:
    with grpc.insecure_channel(server.address) as channel, SandboxClient(server.address) as client:
        yield Box(client, ProcessServiceStub(channel), "busybox:latest")


def test_restarts_a_service_and_reports_its_health(box: Box, image: str) -> None:
    """The service is healthy when it responds, restarts after a kill, and continues the same output."""
    check = process_pb2.HealthCheck(
        http=process_pb2.HttpCheck(port=8080, path=PAGES[image]), interval=seconds(0.1), failure_threshold=2
    )
    service = pb.Service(name="web", restart_policy=process_pb2.RESTART_POLICY_ALWAYS, health_check=check)
    box.start("web-1", *SERVERS[image], service=service)
    records = (response.event.process for response in box.attach("web") if response.event.HasField("process"))
    first = next(seen for seen in records if seen.health == process_pb2.PROCESS_HEALTH_HEALTHY)
    signal = pb.SignalProcessRequest(sandbox_id=box.id, process_id="web", signal=9)
    box.stub.SignalProcess(signal, timeout=SECS)
    again = next(seen for seen in records if seen.restarts == 1 and seen.health == process_pb2.PROCESS_HEALTH_HEALTHY)
    assert again.pid != first.pid
    with pytest.raises(grpc.RpcError) as taken:
        box.start("web-2", *SERVERS[image], service=pb.Service(name="web"))
    assert taken.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    restart = pb.RestartProcessRequest(sandbox_id=box.id, process_id="web")
    assert box.stub.RestartProcess(restart, timeout=SECS).process.restarts == 2
    next(seen for seen in records if seen.restarts == 2 and seen.health == process_pb2.PROCESS_HEALTH_HEALTHY)
    kill = pb.KillProcessRequest(sandbox_id=box.id, process_id="web")
    exited = box.stub.KillProcess(kill, timeout=SECS).process
    assert exited.state == process_pb2.PROCESS_STATE_EXITED
    assert box.seen("web").stdout == b"begins\n" * 3


def test_restarts_a_failed_service_with_back_off(busybox: Box) -> None:
    """The delays are 0.1 s, 0.2 s and so on: the third run starts after at least 0.3 s."""
    service = pb.Service(name="failing", restart_policy=process_pb2.RESTART_POLICY_ON_FAILURE)
    command = "n=$(($(cat /tmp/runs 2>/dev/null || echo 0) + 1)); echo $n > /tmp/runs; [ $n -ge 3 ]"
    first = busybox.start("failing-1", command=command, service=service)
    busybox.seen("failing")
    exited = busybox.get("failing")
    assert (exited.restarts, exited.exit.exit_code, exited.state) == (2, 0, process_pb2.PROCESS_STATE_EXITED)
    assert exited.end_time.ToNanoseconds() - first.start_time.ToNanoseconds() >= 300_000_000


def test_does_not_restart_a_service_without_a_restart_policy(busybox: Box) -> None:
    busybox.start("once-1", command="exit 3", service=pb.Service(name="once"))
    busybox.seen("once")
    assert (busybox.get("once").restarts, busybox.get("once").exit.exit_code) == (0, 3)


def test_tcp_health_check_detects_the_listener(busybox: Box) -> None:
    """The service is unhealthy while no process listens on the port, and healthy afterwards."""
    check = process_pb2.HealthCheck(tcp=process_pb2.TcpCheck(port=8123), interval=seconds(0.1), failure_threshold=2)
    command = "until [ -e /tmp/go ]; do sleep 0.05; done; exec httpd -f -p 8123"
    busybox.start("tcp-1", command=command, service=pb.Service(name="tcp", health_check=check))
    records = (response.event.process for response in busybox.attach("tcp") if response.event.HasField("process"))
    unhealthy = next(seen for seen in records if seen.health == process_pb2.PROCESS_HEALTH_UNHEALTHY)
    assert "refused" in unhealthy.health_message
    busybox.text("touch /tmp/go")
    next(seen for seen in records if seen.health == process_pb2.PROCESS_HEALTH_HEALTHY)
    kill = pb.KillProcessRequest(sandbox_id=busybox.id, process_id="tcp")
    busybox.stub.KillProcess(kill, timeout=SECS)
