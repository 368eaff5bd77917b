"""Services inside real containers: started again, found well or not, found by name."""

from collections.abc import Iterator

import grpc
import pytest

from sandpool import SandboxClient
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as pb
from sandpool.v1.process_service_pb2_grpc import ProcessServiceStub
from tests.support.process_box import SECS, Box
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine


SERVERS = {
    "busybox:latest": ("sh", "-c", "echo begins; exec httpd -f -p 8080 -h /etc"),
    "python:3.11-slim": ("sh", "-c", "echo begins; exec python3 -m http.server 8080 -d /etc"),
    "bare": ("/busybox", "sh", "-c", "echo begins; exec /busybox httpd -f -p 8080 -h /"),
}
"""A web server that says when it begins, for each image."""
PAGES = {"busybox:latest": "/passwd", "python:3.11-slim": "/passwd", "bare": "/busybox"}
"""A file that it has."""


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


def test_a_web_server_as_a_service(box: Box, image: str) -> None:
    """It is healthy when it answers, is started again when it is killed, and goes on in the same output."""
    check = process_pb2.HealthCheck(
        http=process_pb2.HttpCheck(port=8080, path=PAGES[image]), interval_secs=0.1, retries=2
    )
    service = pb.Service(name="web", restart_policy=process_pb2.RESTART_POLICY_ALWAYS, health_check=check)
    box.start("web-1", *SERVERS[image], service=service)
    records = (answer.event.process for answer in box.attach("web") if answer.event.HasField("process"))
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
    ended = box.stub.KillProcess(kill, timeout=SECS).process
    assert ended.state == process_pb2.PROCESS_STATE_ENDED
    assert box.seen("web").stdout == b"begins\n" * 3


def test_a_service_is_started_again_when_it_failed(busybox: Box) -> None:
    """After 0.1 s, then 0.2 s and so on: a third run is not before 0.3 s."""
    service = pb.Service(name="failing", restart_policy=process_pb2.RESTART_POLICY_ON_FAILURE)
    command = "n=$(($(cat /tmp/runs 2>/dev/null || echo 0) + 1)); echo $n > /tmp/runs; [ $n -ge 3 ]"
    first = busybox.start("failing-1", command=command, service=service)
    busybox.seen("failing")
    ended = busybox.get("failing")
    assert (ended.restarts, ended.end.exit_code, ended.state) == (2, 0, process_pb2.PROCESS_STATE_ENDED)
    assert ended.end_time.ToNanoseconds() - first.start_time.ToNanoseconds() >= 300_000_000


def test_a_service_that_is_not_to_be_started_again(busybox: Box) -> None:
    busybox.start("once-1", command="exit 3", service=pb.Service(name="once"))
    busybox.seen("once")
    assert (busybox.get("once").restarts, busybox.get("once").end.exit_code) == (0, 3)


def test_a_check_by_tcp(busybox: Box) -> None:
    """It is unhealthy while nothing listens, and healthy once something does."""
    check = process_pb2.HealthCheck(tcp=process_pb2.TcpCheck(port=8123), interval_secs=0.1, retries=2)
    command = "until [ -e /tmp/go ]; do sleep 0.05; done; exec httpd -f -p 8123"
    busybox.start("tcp-1", command=command, service=pb.Service(name="tcp", health_check=check))
    records = (answer.event.process for answer in busybox.attach("tcp") if answer.event.HasField("process"))
    sick = next(seen for seen in records if seen.health == process_pb2.PROCESS_HEALTH_UNHEALTHY)
    assert "refused" in sick.health_message
    busybox.text("touch /tmp/go")
    next(seen for seen in records if seen.health == process_pb2.PROCESS_HEALTH_HEALTHY)
    kill = pb.KillProcessRequest(sandbox_id=busybox.id, process_id="tcp")
    busybox.stub.KillProcess(kill, timeout=SECS)
