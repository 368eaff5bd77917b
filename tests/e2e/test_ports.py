"""TCP tunnels into real containers."""

import contextlib
import hashlib
import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from sandpool import SandboxClient
from sandpool.v1 import port_service_pb2 as pb
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as pb_processes
from sandpool.v1.port_service_pb2_grpc import PortServiceStub
from sandpool.v1.process_service_pb2_grpc import ProcessServiceStub
from tests.support.process_box import Box
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

SECS = 60.0
ECHO = """
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 256
    allow_reuse_address = True
with Server((sys.argv[1], int(sys.argv[2])), Echo) as server:
    print("listening", flush=True)
    server.serve_forever()
"""
FULL = """
import socket, time
server = socket.socket()
server.bind(("127.0.0.1", 7002))
server.listen(0)
waiting = [socket.socket() for _ in range(4)]
for one in waiting:
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", 7002))
print("listening", flush=True)
time.sleep(4711)
"""
"""Listens and accepts nobody; its queue is full."""


class Tunnel:
    """An open tunnel."""

    def __init__(self, stub: PortServiceStub, sandbox_id: str, port: int, **fields: Any) -> None:
        self._requests: queue.SimpleQueue[pb.OpenTunnelRequest | None] = queue.SimpleQueue()
        target = pb.TunnelTarget(sandbox_id=sandbox_id, port=port, **fields)
        self._requests.put(pb.OpenTunnelRequest(target=target))
        self._answers = stub.OpenTunnel(iter(self._requests.get, None), timeout=SECS)
        try:
            assert next(self._answers).WhichOneof("part") == "opened"
        except BaseException:
            self.end()
            raise

    def send(self, data: bytes) -> None:
        self._requests.put(pb.OpenTunnelRequest(data=data))

    def end(self) -> None:
        """Close our direction."""
        self._requests.put(None)

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        return b"".join(answer.data for answer in self._answers)

    def close(self) -> None:
        self._answers.cancel()
        self.end()


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as made:
        yield made


@pytest.fixture(scope="module")
def ports(channel: grpc.Channel) -> PortServiceStub:
    return PortServiceStub(channel)


@pytest.fixture(scope="module")
def python(server: ServerProcess, channel: grpc.Channel) -> Iterator[Box]:
    with SandboxClient(server.address) as client:
        box = Box(client, ProcessServiceStub(channel), "python:3.11-slim")
        for process_id, argv in (
            ("echo", ("python3", "-c", ECHO, "127.0.0.1", "7001")),
            ("full", ("python3", "-c", FULL)),
        ):
            box.start(process_id, *argv)
            listening(box, process_id)
        yield box


def listening(box: Box, process_id: str) -> None:
    for answer in box.attach(process_id):
        if b"listening" in answer.event.output.data:
            return


def test_many_bytes_both_ways(python: Box, ports: PortServiceStub) -> None:
    data = os.urandom(1 << 20)
    tunnel = Tunnel(ports, python.id, 7001)
    threading.Thread(target=lambda: [tunnel.send(data) for _ in range(32)] + [tunnel.end()], daemon=True).start()
    expected = hashlib.sha256(data * 32).hexdigest()
    assert hashlib.sha256(tunnel.rest()).hexdigest() == expected


def test_refused_and_unreachable_are_told_apart(python: Box, ports: PortServiceStub) -> None:
    with pytest.raises(grpc.RpcError, match="nothing listens") as refused:
        Tunnel(ports, python.id, 7999)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.RpcError, match="does not accept") as unreachable:
        Tunnel(ports, python.id, 7002, connect_timeout_secs=0.5)
    assert unreachable.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_agents_own_port_is_not_a_port_of_the_sandbox(python: Box, ports: PortServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as own:
        Tunnel(ports, python.id, 10240)
    assert own.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_half_closed_both_ways(python: Box, ports: PortServiceStub) -> None:
    """What answers only once its input has ended, and what speaks and closes without being asked."""
    serve = "import socket; s = socket.create_server(('127.0.0.1', {port})); print('listening', flush=True); {then}"
    then = "c, _ = s.accept(); data = c.makefile('rb').read(); c.sendall(data[::-1]); c.close()"
    python.start("last", "python3", "-c", serve.format(port=7004, then=then))
    listening(python, "last")
    tunnel = Tunnel(ports, python.id, 7004)
    tunnel.send(b"abc")
    tunnel.end()
    assert tunnel.rest() == b"cba"
    then = "c, _ = s.accept(); c.sendall(b'bye'); c.close()"
    python.start("first", "python3", "-c", serve.format(port=7005, then=then))
    listening(python, "first")
    tunnel = Tunnel(ports, python.id, 7005)
    assert tunnel.rest() == b"bye"
    tunnel.end()


def test_two_hundred_at_once(python: Box, ports: PortServiceStub) -> None:
    tunnels = [Tunnel(ports, python.id, 7001) for _ in range(200)]
    for number, tunnel in enumerate(tunnels):
        tunnel.send(str(number).encode())
        tunnel.end()
    assert [tunnel.rest() for tunnel in tunnels] == [str(number).encode() for number in range(200)]


def test_whoever_does_not_read_stops_the_sender(python: Box, ports: PortServiceStub) -> None:
    count = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 7006)); print('listening', flush=True);"
        "c, _ = s.accept(); n = 0\n"
        "while n < 256 << 20:\n    c.sendall(bytes(1 << 20)); n += 1 << 20; print(n >> 20, flush=True)\nc.close()"
    )
    python.start("flood", "python3", "-c", count)
    listening(python, "flood")
    tunnel = Tunnel(ports, python.id, 7006)
    printed, last = 0, -1
    stop = threading.Event()
    while printed != last:
        last = printed
        stop.wait(0.5)
        printed = python.get("flood").stdout.end
    assert "256" not in python.seen_so_far("flood").splitlines()
    assert len(tunnel.rest()) == 256 << 20
    tunnel.end()


def test_a_tunnel_ends_with_its_sandbox(server: ServerProcess, channel: grpc.Channel, ports: PortServiceStub) -> None:
    with SandboxClient(server.address) as client:
        box = Box(client, ProcessServiceStub(channel), "busybox:latest")
        box.start("nc", "nc", "-l", "-p", "7001")
        until_listening(box, 7001)
        tunnel = Tunnel(ports, box.id, 7001)
        client.delete(box.id)
        # As what listens there is ended first, this is as a rule the end of a connection, and no error.
        with contextlib.suppress(grpc.RpcError):
            tunnel.rest()
        tunnel.end()
        with pytest.raises(grpc.RpcError) as after:
            Tunnel(ports, box.id, 7001)
        assert after.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def until_listening(box: Box, port: int) -> None:
    box.sandbox.run(f"until netstat -ltn | grep -q :{port}; do sleep 0.05; done", timeout=20)


@pytest.mark.parametrize("image", ["busybox:latest", "bare"])
def test_in_images_that_have_next_to_nothing(
    server: ServerProcess, channel: grpc.Channel, ports: PortServiceStub, bare_image: str, image: str
) -> None:
    """A program that listens on the sandbox's own address alone is found, too."""
    with SandboxClient(server.address) as client:
        stub = ProcessServiceStub(channel)
        box = Box(client, stub, bare_image if image == "bare" else image)
        busybox = ("/busybox",) if image == "bare" else ("busybox",)
        box.start("address", *busybox, "ip", "-4", "-o", "address", "show", "eth0")
        address = box.seen("address").stdout.decode().split()[3].partition("/")[0]
        httpd = (*busybox, "httpd", "-f", "-p", f"{address}:7001", "-h", "/")
        check = process_pb2.HealthCheck(tcp=process_pb2.TcpCheck(port=7001), interval_secs=0.1)
        box.start("web", *httpd, service=pb_processes.Service(name="web", health_check=check))
        tunnel = reached(ports, box.id, 7001)
        tunnel.send(b"GET /etc/no-such-file HTTP/1.0\r\n\r\n")
        assert b"404" in tunnel.rest()
        tunnel.end()


def reached(stub: PortServiceStub, sandbox_id: str, port: int) -> Tunnel:
    """A tunnel as soon as something listens."""
    while True:
        try:
            return Tunnel(stub, sandbox_id, port)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
