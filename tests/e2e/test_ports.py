"""TCP tunnels to ports of containers."""

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
from sandpool_server.gen.v1.port_service_pb2_grpc import PortServiceStub
from sandpool_server.gen.v1.process_service_pb2_grpc import ProcessServiceStub
from tests.support.durations import seconds
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
"""A program that listens and accepts no connection; its queue is full."""


class Tunnel:
    """An open tunnel to a port of a sandbox."""

    def __init__(self, stub: PortServiceStub, sandbox_id: str, port: int, **fields: Any) -> None:
        self._requests: queue.SimpleQueue[pb.OpenTunnelRequest | None] = queue.SimpleQueue()
        target = pb.TunnelTarget(sandbox_id=sandbox_id, port=port, **fields)
        self._requests.put(pb.OpenTunnelRequest(target=target))
        self._responses = stub.OpenTunnel(iter(self._requests.get, None), timeout=SECS)
        try:
            assert next(self._responses).WhichOneof("part") == "opened"
        except BaseException:
            self.end()
            raise

    def send(self, data: bytes) -> None:
        self._requests.put(pb.OpenTunnelRequest(data=data))

    def end(self) -> None:
        """Close the direction to the sandbox."""
        self._requests.put(None)

    def rest(self) -> bytes:
        """Return all bytes until the sandbox closes the connection."""
        return b"".join(response.data for response in self._responses)

    def close(self) -> None:
        self._responses.cancel()
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
            wait_for_output(box, process_id)
        yield box


def wait_for_output(box: Box, process_id: str) -> None:
    for response in box.attach(process_id):
        if b"listening" in response.event.output.data:
            return


def test_tunnel_transfers_many_bytes_in_both_directions(python: Box, ports: PortServiceStub) -> None:
    data = os.urandom(1 << 20)
    tunnel = Tunnel(ports, python.id, 7001)
    threading.Thread(target=lambda: [tunnel.send(data) for _ in range(32)] + [tunnel.end()], daemon=True).start()
    expected = hashlib.sha256(data * 32).hexdigest()
    assert hashlib.sha256(tunnel.rest()).hexdigest() == expected


def test_distinguishes_refused_from_unreachable_ports(python: Box, ports: PortServiceStub) -> None:
    with pytest.raises(grpc.RpcError, match="no process listens") as refused:
        Tunnel(ports, python.id, 7999)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.RpcError, match="i/o timeout") as unreachable:
        Tunnel(ports, python.id, 7002, connect_timeout=seconds(0.5))
    assert unreachable.value.code() is grpc.StatusCode.UNAVAILABLE


def test_rejects_a_tunnel_to_the_port_of_the_agent(python: Box, ports: PortServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as own:
        Tunnel(ports, python.id, 10240)
    assert own.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_tunnel_supports_half_closed_connections(python: Box, ports: PortServiceStub) -> None:
    """One program responds after the end of its input; another sends and closes without input."""
    serve = "import socket; s = socket.create_server(('127.0.0.1', {port})); print('listening', flush=True); {then}"
    then = "c, _ = s.accept(); data = c.makefile('rb').read(); c.sendall(data[::-1]); c.close()"
    python.start("last", "python3", "-c", serve.format(port=7004, then=then))
    wait_for_output(python, "last")
    tunnel = Tunnel(ports, python.id, 7004)
    tunnel.send(b"abc")
    tunnel.end()
    assert tunnel.rest() == b"cba"
    then = "c, _ = s.accept(); c.sendall(b'bye'); c.close()"
    python.start("first", "python3", "-c", serve.format(port=7005, then=then))
    wait_for_output(python, "first")
    tunnel = Tunnel(ports, python.id, 7005)
    assert tunnel.rest() == b"bye"
    tunnel.end()


def test_serves_two_hundred_concurrent_tunnels(python: Box, ports: PortServiceStub) -> None:
    tunnels = [Tunnel(ports, python.id, 7001) for _ in range(200)]
    for number, tunnel in enumerate(tunnels):
        tunnel.send(str(number).encode())
        tunnel.end()
    assert [tunnel.rest() for tunnel in tunnels] == [str(number).encode() for number in range(200)]


def test_stalled_reader_stops_the_sender(python: Box, ports: PortServiceStub) -> None:
    count = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 7006)); print('listening', flush=True);"
        "c, _ = s.accept(); n = 0\n"
        "while n < 256 << 20:\n    c.sendall(bytes(1 << 20)); n += 1 << 20; print(n >> 20, flush=True)\nc.close()"
    )
    python.start("flood", "python3", "-c", count)
    wait_for_output(python, "flood")
    tunnel = Tunnel(ports, python.id, 7006)
    printed, last = 0, -1
    stop = threading.Event()
    while printed != last:
        last = printed
        stop.wait(0.5)
        printed = python.get("flood").stdout.end_offset
    assert "256" not in python.seen_so_far("flood").splitlines()
    assert len(tunnel.rest()) == 256 << 20
    tunnel.end()


def test_tunnel_ends_with_its_sandbox(server: ServerProcess, channel: grpc.Channel, ports: PortServiceStub) -> None:
    with SandboxClient(server.address) as client:
        box = Box(client, ProcessServiceStub(channel), "busybox:latest")
        box.start("nc", "nc", "-l", "-p", "7001")
        wait_until_listening(box, 7001)
        tunnel = Tunnel(ports, box.id, 7001)
        client.delete_sandbox(box.id)
        # Usually the listener exits first and the connection ends without an error.
        with contextlib.suppress(grpc.RpcError):
            tunnel.rest()
        tunnel.end()
        with pytest.raises(grpc.RpcError) as after:
            Tunnel(ports, box.id, 7001)
        assert after.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def wait_until_listening(box: Box, port: int) -> None:
    box.sandbox.run(f"until netstat -ltn | grep -q :{port}; do sleep 0.05; done", timeout=20)


@pytest.mark.parametrize("image", ["busybox:latest", "bare"])
def test_tunnel_works_in_minimal_images(
    server: ServerProcess, channel: grpc.Channel, ports: PortServiceStub, bare_image: str, image: str
) -> None:
    """The tunnel also reaches a program that listens only on the address of eth0."""
    with SandboxClient(server.address) as client:
        stub = ProcessServiceStub(channel)
        box = Box(client, stub, bare_image if image == "bare" else image)
        busybox = ("/busybox",) if image == "bare" else ("busybox",)
        box.start("address", *busybox, "ip", "-4", "-o", "address", "show", "eth0")
        address = box.seen("address").stdout.decode().split()[3].partition("/")[0]
        httpd = (*busybox, "httpd", "-f", "-p", f"{address}:7001", "-h", "/")
        check = process_pb2.HealthCheck(tcp=process_pb2.TcpCheck(port=7001), interval=seconds(0.1))
        box.start("web", *httpd, service=pb_processes.Service(name="web", health_check=check))
        tunnel = open_when_listening(ports, box.id, 7001)
        tunnel.send(b"GET /etc/no-such-file HTTP/1.0\r\n\r\n")
        assert b"404" in tunnel.rest()
        tunnel.end()


def open_when_listening(stub: PortServiceStub, sandbox_id: str, port: int) -> Tunnel:
    """Return a tunnel when a process listens on the port."""
    while True:
        try:
            return Tunnel(stub, sandbox_id, port)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
