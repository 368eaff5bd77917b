"""The Python client on ports, services, logs and figures of a real sandbox, blocking and with asyncio."""

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
    ProcessHealth,
    Sandbox,
    SandboxClient,
    SandboxNotReadyError,
    TunnelConnectionRefusedError,
    TunnelPortNotAllowedError,
)
from tests.support.server_process import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

IMAGE = "busybox:latest"
ECHO = ["nc", "-ll", "-p", "7000", "-e", "cat"]


@pytest.fixture(scope="module")
def box(server: ServerProcess) -> Iterator[Sandbox]:
    with SandboxClient(server.address) as client, client.create(IMAGE) as made:
        yield made


def test_a_service_with_its_health_and_its_log(box: Sandbox):
    began = datetime.now(UTC)
    service = box.start_process(
        "mkdir -p /www; echo hello > /www/index.html; echo serving; exec httpd -f -p 8000 -h /www",
        name="web",
        restart="always",
        health_check=HealthCheck(8000, "/index.html", interval_secs=0.1),
    )
    assert service.name == "web"
    eventually(lambda: box.get_process("web").health is ProcessHealth.HEALTHY)
    again = box.restart_process("web")
    assert again.restarts == 1
    eventually(lambda: len(list(box.logs(sources=["web"], since=began))) == 2)
    assert {entry.text for entry in box.logs(sources=["web"], since=began)} == {"serving"}
    logs = box.get_logs(process_ids=["web"], tail=1)
    assert [entry.text for entry in logs] == ["serving"]
    assert len(box.get_logs(process_ids=["web"], next_token=logs.next_token)) == 0
    box.kill_process("web")


def test_logs_are_followed_until_the_sandbox_ends(server: ServerProcess):
    with SandboxClient(server.address) as client, client.create(IMAGE) as made:
        made.start_process("echo one; sleep 0.2; echo two", name="job")
        entries = made.logs(follow=True)
        assert [next(entries).text for _ in range(2)] == ["one", "two"]
        made.delete()
        assert list(entries) == []
        with pytest.raises(SandboxNotReadyError):
            list(made.logs())


def test_figures(box: Sandbox):
    now = box.stats()
    assert 0 < now.memory_bytes < now.memory_limit_bytes
    assert now.processes >= 1
    several = box.watch_stats(0.1, timeout=20)
    first, second = next(several), next(several)
    several.close()
    assert first.time is not None
    assert second.time is not None
    assert first.time < second.time


def exchange(port: int, data: bytes) -> bytes:
    """What comes back from a port of this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        sender.start()
        found = bytearray()
        while part := connection.recv(65536):
            found += part
        sender.join()
        return bytes(found)


def test_a_tunnel(box: Sandbox):
    box.start_process(ECHO, process_id="echo-server")
    with box.tunnel(7000) as tunnel:
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
    box.kill_process("echo-server")


def test_nothing_listens(box: Sandbox):
    with pytest.raises(TunnelConnectionRefusedError) as caught:
        box.connect_port(7999)
    assert caught.value.port == 7999
    with box.create_tunnel(7999) as tunnel:
        assert exchange(tunnel.local_port, b"") == b""
        eventually(lambda: isinstance(tunnel.last_error, TunnelConnectionRefusedError))
        with pytest.raises(OSError, match="in use"):
            box.tunnel(7999, local_port=tunnel.local_port)


async def test_ports_and_logs_with_asyncio(server: ServerProcess):
    async with AsyncSandboxClient(server.address) as client, client.create(IMAGE) as box:
        await box.start_process(ECHO, name="echo")
        async with box.tunnel(7000) as tunnel:
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
            await box.connect_port(7999)
        connection = await box.connect_port(7000)
        await connection.send(b"direct")
        assert await connection.receive() == b"direct"
        await connection.close()

        assert (await box.stats()).memory_bytes > 0
        async for figures in box.watch_stats(0.1):
            assert figures.processes >= 1
            break
        await box.start_process("echo line", name="job")
        async for entry in box.logs(follow=True, sources=["job"]):
            assert re.fullmatch("line", entry.text)
            break


async def test_ports_by_http(tmp_path: Path, server: ServerProcess, client: SandboxClient):
    with ServerProcess(tmp_path / "data", web_address="127.0.0.1:0") as own, SandboxClient(own.address) as web:
        box = web.create(IMAGE)
        box.write("/www/index.html", "hello")
        box.start_process("exec httpd -f -p 8000 -h /www", name="web", health_check=HealthCheck(8000, "/index.html"))
        (exposed,) = box.expose_ports(8000)
        assert box.expose_ports([8000]) == box.get_port_access() == web.get_port_access(box.sandbox_id) == [exposed]
        host = exposed.url.partition("://")[2].partition("/")[0]

        def fetch() -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", int(host.rpartition(":")[2]), timeout=10)
            connection.request("GET", "/index.html", headers={"Host": host})
            answer = connection.getresponse()
            found = answer.status, answer.read()
            connection.close()
            return found

        await asyncio.to_thread(eventually, lambda: fetch() == (200, b"hello"))
        async with AsyncSandboxClient(own.address) as other:
            await other.unexpose_ports(box.sandbox_id, 8000)
            assert await (await other.get(box.sandbox_id)).get_port_access() == []
        assert fetch()[0] != 200
        box.delete()
    with client.create(IMAGE) as plain, pytest.raises(TunnelPortNotAllowedError) as caught:
        plain.expose_ports([80])
    assert caught.value.reason == "WEB_PORT_OFF"
