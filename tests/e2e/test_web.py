"""The web port: the API for browsers, and exposed ports of sandboxes that can be hostile."""

import hashlib
import http.client
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import websockets.exceptions
from websockets.sync.client import connect

from sandpool import SandboxClient
from sandpool.v1 import port_service_pb2 as pb
from sandpool_server.gen.v1.port_service_pb2_grpc import PortServiceStub
from sandpool_server.gen.v1.process_service_pb2_grpc import ProcessServiceStub
from tests.support.process_box import Box
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

SECS = 30.0
ORIGIN = "https://app.example"
WEB_SERVER = (Path(__file__).parents[1] / "support" / "web_server.py").read_text()


class Web:
    """Requests to the web port of a server."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.port = int(server.web_address.rpartition(":")[2])

    def request(
        self, method: str, path: str, body: Any = None, host: str = "127.0.0.1", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECS)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Host": f"{host}:{self.port}", **named})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def call(self, method: str, message: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
        """Send a unary call with Connect and JSON. Return the status and the message."""
        named = {"content_type": "application/json", **headers}
        status, _, body = self.request("POST", f"/sandpool.v1.{method}", json.dumps(message), **named)
        return status, json.loads(body) if body.startswith(b"{") else {"text": body.decode()}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    directory = tmp_path_factory.mktemp("web") / "data"
    with ServerProcess(directory, web_address="127.0.0.1:0", web_cors_origins=ORIGIN) as server:
        yield Web(server)


@pytest.fixture(scope="module")
def channel(web: Web) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(web.server.address) as made:
        yield made


@pytest.fixture(scope="module")
def ports(channel: grpc.Channel) -> PortServiceStub:
    return PortServiceStub(channel)


@pytest.fixture(scope="module")
def box(web: Web, channel: grpc.Channel) -> Iterator[Box]:
    with SandboxClient(web.server.address) as client:
        made = Box(client, ProcessServiceStub(channel), "python:3.11-slim")
        made.start("web", "python3", "-c", WEB_SERVER, "8000")
        for response in made.attach("web"):
            if b"listening" in response.event.output.data:
                break
        yield made


@pytest.fixture(scope="module")
def host(web: Web, ports: PortServiceStub, box: Box) -> str:
    """Return the host name of the exposed port."""
    exposed = ports.ExposePort(pb.ExposePortRequest(sandbox_id=box.id, port=8000)).exposed_port
    assert exposed.url == f"http://8000-{box.id}.localhost:{web.port}"
    return f"8000-{box.id}.localhost"


def test_connect_api_returns_the_same_as_grpc(web: Web) -> None:
    status, response = web.call("PoolService/CreatePool", {"spec": {"image": "busybox:latest"}, "name": "from-the-web"})
    assert (status, response["pool"]["name"]) == (200, "from-the-web")
    status, response = web.call("PoolService/CreatePool", {"spec": {"image": "two words"}})
    assert (status, response["code"]) == (400, "invalid_argument")
    assert {detail["type"] for detail in response["details"]} == {"google.rpc.ErrorInfo", "google.rpc.BadRequest"}
    status, response = web.call("PoolService/GetPool", {"poolId": "missing"})
    assert (status, response["code"]) == (404, "not_found")
    status, _ = web.call("PoolService/DeletePool", {"poolId": "from-the-web"})
    assert status == 200
    assert web.request("GET", "/sandpool.v1.PoolService/ListPools?encoding=json&message={}")[0] != 200
    assert web.request("POST", "/sandpool.v1.NoService/None", "{}", content_type="application/json")[0] == 404


def test_streams_over_connect(web: Web, box: Box) -> None:
    box.start("three", command="for i in 1 2 3; do echo $i; done")
    message = json.dumps({"sandboxId": box.id, "processId": "three"}).encode()
    envelope = struct.pack(">BI", 0, len(message)) + message
    path = "/sandpool.v1.ProcessService/AttachProcess"
    status, _, body = web.request("POST", path, envelope, content_type="application/connect+json")
    assert status == 200
    events = []
    while body:
        flags, size = struct.unpack(">BI", body[:5])
        events.append((flags, json.loads(body[5 : 5 + size])))
        body = body[5 + size :]
    assert events[-1] == (2, {})
    assert "exited" in events[-2][1]["event"]


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "8000-sbx-short.localhost"])
def test_rejects_other_host_names(web: Web, name: str) -> None:
    """A host name that resolves to the server by DNS rebinding is not served."""
    assert (
        web.request("POST", "/sandpool.v1.PoolService/ListPools", "{}", name, content_type="application/json")[0] == 421
    )


def test_rejects_origins_that_are_not_configured(web: Web, host: str) -> None:
    for origin in ("https://evil.example", f"http://{host}:{web.port}", "null"):
        assert web.call("PoolService/ListPools", {}, origin=origin)[0] == 403
        preflight = {"origin": origin, "access_control_request_method": "POST"}
        status, headers, _ = web.request("OPTIONS", "/sandpool.v1.PoolService/ListPools", **preflight)
        assert status == 403
        assert "access-control-allow-origin" not in headers
    assert web.call("PoolService/ListPools", {}, origin=f"http://127.0.0.1:{web.port}")[0] == 200
    path = "/sandpool.v1.PoolService/ListPools"
    status, headers, _ = web.request("POST", path, "{}", origin=ORIGIN, content_type="application/json")
    assert (status, headers["access-control-allow-origin"]) == (200, ORIGIN)
    preflight = {
        "origin": ORIGIN,
        "access_control_request_method": "POST",
        "access_control_request_headers": "content-type, connect-protocol-version",
    }
    assert web.request("OPTIONS", path, **preflight)[0] == 200


def test_serves_only_exposed_ports(web: Web, ports: PortServiceStub, box: Box, host: str) -> None:
    assert web.request("GET", "/", host=host)[0] == 200
    status, _, text = web.request("GET", "/", host=f"8001-{box.id}.localhost")
    assert (status, b"ExposePort" in text) == (404, True)
    assert web.request("GET", "/", host=f"8000-sbx-{'0' * 20}.localhost")[0] == 404
    ports.ExposePort(pb.ExposePortRequest(sandbox_id=box.id, port=8001))
    status, _, text = web.request("GET", "/", host=f"8001-{box.id}.localhost")
    assert (status, b"no process listens" in text) == (502, True)
    listed = ports.ListExposedPorts(pb.ListExposedPortsRequest(sandbox_id=box.id)).exposed_ports
    assert [port.port for port in listed] == [8000, 8001]
    for _ in range(2):
        ports.UnexposePort(pb.UnexposePortRequest(sandbox_id=box.id, port=8001))
    assert web.request("GET", "/", host=f"8001-{box.id}.localhost")[0] == 404


def test_forwards_requests_unchanged(web: Web, host: str) -> None:
    headers = {"x_mine": "yes", "connection": "x-hop", "x_hop": "no", "x_forwarded_for": "lie", "cookie": "c=d"}
    status, returned, body = web.request("GET", "/a%2Fb/../c?d=%20e", host=host, **headers)
    lines = body.decode().splitlines()
    assert status == 200
    assert returned["set-cookie"] == "a=b"
    assert lines[0] == "GET /a%2Fb/../c?d=%20e"
    fields = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines[1:]}
    assert (fields["host"], fields["x-mine"], fields["cookie"]) == (f"{host}:{web.port}", "yes", "c=d")
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert "x-hop" not in fields


def test_transfers_large_bodies_in_both_directions(web: Web, host: str) -> None:
    data = os.urandom(32 << 20)
    assert web.request("POST", "/", data, host=host)[2].decode() == hashlib.sha256(data).hexdigest()
    assert len(web.request("GET", f"/zeros/{32 << 20}", host=host)[2]) == 32 << 20


def test_serves_many_concurrent_requests(web: Web, host: str) -> None:
    with ThreadPoolExecutor(64) as pool:
        responses = list(pool.map(lambda _: web.request("GET", "/zeros/1000", host=host)[0], range(200)))
    assert responses == [200] * 200


def test_invalid_http_response_is_a_bad_gateway(web: Web, host: str) -> None:
    assert web.request("GET", "/garbage", host=host)[0] == 502
    assert web.request("GET", "/endless", host=host)[0] == 502
    with pytest.raises(http.client.IncompleteRead):
        web.request("GET", "/short", host=host)
    assert web.request("GET", "/", host=host)[0] == 200
    assert web.call("PoolService/ListPools", {})[0] == 200


def open_socket(web: Web, host: str, **options: Any) -> Any:
    raw = socket.create_connection(("127.0.0.1", web.port), SECS)
    return connect(f"ws://{host}:{web.port}/socket?a=b", sock=raw, compression=None, proxy=None, **options)


def test_proxies_websockets(web: Web, host: str) -> None:
    with open_socket(web, host, subprotocols=["chat"]) as opened:
        assert opened.subprotocol == "chat"
        for message in ("text", b"bytes", "ü" * 300, bytes(60_000)):
            opened.send(message)
            assert opened.recv(SECS) == message
        opened.close(4000, "enough")
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        open_socket(web, host.replace("8000", "8002"))
    assert refused.value.response.status_code == 404


def test_unexposing_a_port_closes_its_connections(web: Web, ports: PortServiceStub, box: Box, host: str) -> None:
    responses: list[Any] = []

    def slow() -> None:
        try:
            responses.append(web.request("GET", "/slow", host=host))
        except http.client.HTTPException as error:
            responses.append(error)

    with open_socket(web, host) as opened:
        opened.send("hello")
        assert opened.recv(SECS) == "hello"
        asking = threading.Thread(target=slow)
        asking.start()
        # 1F40 is port 8000, and 01 an established connection: those of the WebSocket and of the slow response.
        box.sandbox.run("until [ $(grep -c ':1F40 .*:.... 01 ' /proc/net/tcp) -ge 2 ]; do sleep 0.05; done", timeout=20)
        ports.UnexposePort(pb.UnexposePortRequest(sandbox_id=box.id, port=8000))
        asking.join(SECS)
        assert isinstance(responses[0], http.client.IncompleteRead)
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            opened.recv(SECS)
    ports.ExposePort(pb.ExposePortRequest(sandbox_id=box.id, port=8000))
    assert web.request("GET", "/", host=host)[0] == 200


def test_exposed_ports_survive_a_kill_of_the_server(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", web_address="127.0.0.1:0") as server:
        with SandboxClient(server.address) as client, grpc.insecure_channel(server.address) as channel:
            box = Box(client, ProcessServiceStub(channel), "busybox:latest")
            box.start("web", command="mkdir /w; echo hi > /w/index.html; echo listening; exec httpd -f -p 8000 -h /w")
            PortServiceStub(channel).ExposePort(pb.ExposePortRequest(sandbox_id=box.id, port=8000))
            box.sandbox.run("until netstat -ltn | grep -q :8000; do sleep 0.05; done", timeout=20)
        server.kill()
        server.start()
        status, _, body = Web(server).request("GET", "/", host=f"8000-{box.id}.localhost")
        assert (status, body) == (200, b"hi\n")
        with SandboxClient(server.address) as client:
            client.delete_sandbox(box.id)
        assert Web(server).request("GET", "/", host=f"8000-{box.id}.localhost")[0] in (404, 410)


def test_serves_a_port_in_an_image_of_one_static_binary(
    web: Web, channel: grpc.Channel, ports: PortServiceStub, bare_image: str
) -> None:
    with SandboxClient(web.server.address) as client:
        box = Box(client, ProcessServiceStub(channel), bare_image)
        box.start("web", "/busybox", "httpd", "-f", "-p", "8000", "-h", "/")
        url = ports.ExposePort(pb.ExposePortRequest(sandbox_id=box.id, port=8000)).exposed_port.url
        host = url.removeprefix("http://").partition(":")[0]
        while (response := web.request("GET", "/busybox", host=host))[0] == 502:
            pass
        assert response[0] == 200
        assert response[2].startswith(b"\x7fELF")
        client.delete_sandbox(box.id)


def test_rejects_exposing_without_a_web_port(server: ServerProcess) -> None:
    with SandboxClient(server.address) as client, grpc.insecure_channel(server.address) as channel:
        sandbox = client.create(image="busybox:latest")
        with pytest.raises(grpc.RpcError, match="--web-address") as off:
            PortServiceStub(channel).ExposePort(pb.ExposePortRequest(sandbox_id=sandbox.sandbox_id, port=8000))
        assert off.value.code() is grpc.StatusCode.FAILED_PRECONDITION
