"""Ports, services, logs and metrics of a sandbox with the Python client, blocking and with asyncio."""

import asyncio
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandpool import (
    AsyncSandboxClient,
    HealthCheck,
    PortExposureDisabledError,
    ProcessHealth,
    Sandbox,
    SandboxClient,
    SandboxNotReadyError,
    TunnelConnectionRefusedError,
)
from tests.support.server_process import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

IMAGE = "busybox:latest"
ECHO = ["nc", "-ll", "-p", "7000", "-e", "cat"]


@pytest.fixture(scope="module")
def box(server: ServerProcess) -> Iterator[Sandbox]:
    with SandboxClient(server.address) as client, client.create(image=IMAGE) as made:
        yield made


def test_reports_health_and_log_of_a_service(box: Sandbox):
    began = datetime.now(UTC)
    box.processes.start(
        "mkdir -p /www; echo hello > /www/index.html; echo serving; exec httpd -f -p 8000 -h /www",
        name="web",
        restart_policy="always",
        health_check=HealthCheck(8000, "/index.html", interval=0.1),
    )
    assert box.processes.get("web").name == "web"
    eventually(lambda: box.processes.get("web").health is ProcessHealth.HEALTHY)
    again = box.processes.restart("web")
    assert again.restarts == 1
    eventually(lambda: len(list(box.logs(sources=["web"], since=began))) == 2)
    assert {entry.text for entry in box.logs(sources=["web"], since=began)} == {"serving"}
    (last,) = box.logs(sources=["web"], tail=1)
    assert (last.text, last.dropped_entries) == ("serving", 0)
    assert list(box.logs(sources=["web"], after_sequence=last.sequence)) == []
    box.processes.kill("web")


def test_logs_are_followed_until_the_sandbox_terminates(server: ServerProcess):
    with SandboxClient(server.address) as client, client.create(image=IMAGE) as made:
        made.processes.start("echo one; sleep 0.2; echo two", name="job")
        entries = made.logs(follow=True)
        assert [next(entries).text for _ in range(2)] == ["one", "two"]
        made.delete()
        assert list(entries) == []
        with pytest.raises(SandboxNotReadyError):
            list(made.logs())


def test_returns_and_watches_metrics(box: Sandbox):
    now = box.metrics()
    assert 0 < now.memory_bytes < now.memory_limit_bytes
    assert now.processes >= 1
    several = box.watch_metrics(interval=0.1, timeout=20)
    first, second = next(several), next(several)
    several.close()
    assert first.time is not None
    assert second.time is not None
    assert first.time < second.time


def exchange(port: int, data: bytes) -> bytes:
    """Send data to a local port and return the received bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        sender.start()
        found = bytearray()
        while part := connection.recv(65536):
            found += part
        sender.join()
        return bytes(found)


def test_tunnel_forwards_connections(box: Sandbox):
    box.processes.start(ECHO, process_id="echo-server")
    with box.ports.tunnel(7000) as tunnel:
        eventually(lambda: exchange(tunnel.local_port, b"up?") == b"up?")
        data = bytes(range(256)) * 8192
        assert exchange(tunnel.local_port, data) == data
        opened = [socket.create_connection(("127.0.0.1", tunnel.local_port)) for _ in range(5)]
        for number, connection in enumerate(opened):
            connection.sendall(b"%d" % number)
        assert [connection.recv(9) for connection in opened] == [b"%d" % number for number in range(5)]
        assert tunnel.remote_port == 7000
    assert [connection.recv(9) for connection in opened] == [b""] * 5, "closed with the tunnel"
    for connection in opened:
        connection.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", tunnel.local_port))
    box.processes.kill("echo-server")


def test_refuses_connections_to_a_port_without_a_listener(box: Sandbox):
    with pytest.raises(TunnelConnectionRefusedError) as caught:
        box.ports.connect(7999)
    assert caught.value.port == 7999
    with box.ports.tunnel(7999) as tunnel:
        assert exchange(tunnel.local_port, b"") == b""
        eventually(lambda: isinstance(tunnel.last_error, TunnelConnectionRefusedError))
        with pytest.raises(OSError, match="in use"):
            box.ports.tunnel(7999, local_port=tunnel.local_port)


async def test_forwards_ports_and_follows_logs_with_asyncio(server: ServerProcess):
    async with AsyncSandboxClient(server.address) as client, client.create(image=IMAGE) as box:
        await box.processes.start(ECHO, name="echo")
        async with box.ports.tunnel(7000) as tunnel:
            for _ in range(200):
                reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.local_port)
                writer.write(b"hello")
                writer.write_eof()
                found = await reader.read()
                writer.close()
                if found == b"hello":
                    break
            assert found == b"hello"
            reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.local_port)
            writer.write(b"x")
            assert await reader.read(1) == b"x"
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(TunnelConnectionRefusedError):
            await box.ports.connect(7999)
        connection = await box.ports.connect(7000)
        await connection.send(b"direct")
        assert await connection.receive() == b"direct"
        await connection.close()

        assert (await box.metrics()).memory_bytes > 0
        async for metrics in box.watch_metrics(interval=0.1):
            assert metrics.processes >= 1
            break
        await box.processes.start("echo line", name="job")
        async for entry in box.logs(follow=True, sources=["job"]):
            assert re.fullmatch("line", entry.text)
            break


async def test_exposes_a_port_over_http(tmp_path: Path, server: ServerProcess, client: SandboxClient):
    with ServerProcess(tmp_path / "data", web_address="127.0.0.1:0") as own, SandboxClient(own.address) as web:
        box = web.create(image=IMAGE)
        box.files.write("/www/index.html", "hello")
        box.processes.start("exec httpd -f -p 8000 -h /www", name="web", health_check=HealthCheck(8000, "/index.html"))
        exposed = box.ports.expose(8000)
        assert [box.ports.expose(8000)] == list(box.ports.list()) == [exposed]
        host = exposed.url.partition("://")[2].partition("/")[0]

        def fetch() -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", int(host.rpartition(":")[2]), timeout=10)
            connection.request("GET", "/index.html", headers={"Host": host})
            response = connection.getresponse()
            found = response.status, response.read()
            connection.close()
            return found

        await asyncio.to_thread(eventually, lambda: fetch() == (200, b"hello"))
        async with AsyncSandboxClient(own.address) as other:
            ports = (await other.get_sandbox(box.sandbox_id)).ports
            await ports.unexpose(8000)
            assert [port async for port in ports.list()] == []
        assert fetch()[0] != 200
        box.delete()
    with client.create(image=IMAGE) as plain, pytest.raises(PortExposureDisabledError) as caught:
        plain.ports.expose(80)
    assert caught.value.reason == "PORT_EXPOSURE_DISABLED"
