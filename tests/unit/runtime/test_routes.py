"""Addresses of agents, derived from responses of the engine about a container and about itself."""

import socket
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException

from sandpool_server.runtime import client, routes
from sandpool_server.runtime.client import engine_url
from sandpool_server.runtime.failures import EngineConflict
from sandpool_server.runtime.routes import UNKNOWN, Reach, engine_host
from sandpool_server.runtime.ssh import ssh_argv

DIRECT = Reach("direct")
PUBLISHED = Reach("published", "192.0.2.7", "192.0.2.7")
EVERYWHERE = Reach("published", "0.0.0.0", "192.0.2.7")
NETWORKS = {"Networks": {"net": {"IPAddress": "172.18.0.2"}}}


def inspected(*bindings: tuple[str, str]) -> dict[str, Any]:
    ports = {"10240/tcp": [{"HostIp": ip, "HostPort": port} for ip, port in bindings] or None, "80/tcp": None}
    return {**NETWORKS, "Ports": ports}


def listed(*bindings: tuple[str, int]) -> dict[str, Any]:
    ports: list[dict[str, Any]] = [{"PrivatePort": 80, "PublicPort": 1, "IP": "0.0.0.0"}, {"PrivatePort": 10240}]
    ports += [{"PrivatePort": 10240, "PublicPort": port, "IP": ip} for ip, port in bindings]
    return {"NetworkSettings": NETWORKS, "Ports": ports}


@pytest.mark.parametrize(
    ("reach", "bindings", "expected"),
    [
        (DIRECT, [], "172.18.0.2:10240"),
        (DIRECT, [("127.0.0.1", 49153)], "172.18.0.2:10240"),
        (PUBLISHED, [("192.0.2.7", 49153)], "192.0.2.7:49153"),
        (PUBLISHED, [], "172.18.0.2:10240"),
        (EVERYWHERE, [("::", 49154), ("0.0.0.0", 49153)], "192.0.2.7:49153"),
        (UNKNOWN, [("127.0.0.1", 49153)], "127.0.0.1:49153"),
        (UNKNOWN, [], "172.18.0.2:10240"),
    ],
)
def test_address_of_agent(reach: Reach, bindings: list[tuple[str, int]], expected: str) -> None:
    assert reach.inspected(inspected(*((ip, str(port)) for ip, port in bindings))) == expected
    assert reach.listed(listed(*bindings)) == expected


def test_container_without_network_has_no_address() -> None:
    assert PUBLISHED.inspected({"Networks": {"net": {"IPAddress": ""}}, "Ports": {}}) == ""
    assert DIRECT.listed({}) == ""


def test_publishes_port_only_for_published_reach() -> None:
    direct: dict[str, Any] = {"HostConfig": {}}
    DIRECT.publish(direct)
    assert direct == {"HostConfig": {}}
    published: dict[str, Any] = {"HostConfig": {}}
    PUBLISHED.publish(published)
    assert published["ExposedPorts"] == {"10240/tcp": {}}
    assert published["HostConfig"]["PortBindings"] == {"10240/tcp": [{"HostIp": "192.0.2.7", "HostPort": ""}]}


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("unix:///var/run/docker.sock", "127.0.0.1"),
        ("tcp://localhost:2375", "127.0.0.1"),
        ("tcp://127.0.0.2:2375", "127.0.0.1"),
        ("tcp://192.0.2.7:2376", "192.0.2.7"),
        ("https://192.0.2.7:2376", "192.0.2.7"),
        ("ssh://192.0.2.8", "192.0.2.8"),
    ],
)
def test_host_of_engine(url: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "ssh_host_name", lambda url: url.removeprefix("ssh://"))
    assert engine_host(url) == host


def test_rejects_host_without_ipv4_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EngineConflict, match="to an IPv4 address"):
        engine_host("tcp://engine.example:2376")


def test_ssh_command_follows_url_and_never_prompts() -> None:
    argv = ssh_argv("ssh://joe@engine.example:2222")
    assert argv[:4] == ["ssh", "-T", "-o", "BatchMode=yes"]
    assert argv[-6:] == ["-l", "joe", "-p", "2222", "--", "engine.example"]
    assert ssh_argv("ssh://-oProxyCommand=evil")[-2] == "--"
    for wrong in ("ssh://", "ssh://host:port"):
        with pytest.raises(DockerException, match="engine's address"):
            ssh_argv(wrong)


@pytest.mark.parametrize("from_environment", [True, False])
@pytest.mark.parametrize(
    ("url", "variables", "secure"),
    [
        ("tcp://192.0.2.7:2376", {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "certs"}, True),
        ("tcp://192.0.2.7:2376", {"DOCKER_CERT_PATH": "certs"}, True),
        ("tcp://192.0.2.7:2375", {"DOCKER_TLS_VERIFY": ""}, False),
        ("tcp://192.0.2.7:2375", {}, False),
        ("unix:///run/engine.sock", {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "nowhere"}, False),
    ],
)
def test_uses_tls_as_docker_variables_specify(
    url: str,
    variables: dict[str, str],
    secure: bool,
    from_environment: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path) if value == "certs" else value)
    if from_environment:
        monkeypatch.setenv("DOCKER_HOST", url)
    made: list[tuple[str, float, Any]] = []
    monkeypatch.setattr(client, "EngineClient", lambda *arguments: made.append(arguments))
    client.connector("" if from_environment else url)(2.5)
    ((used, timeout, tls),) = made
    assert (used, timeout, bool(tls)) == (url, 2.5, secure)
    if secure:
        assert tls.ca_cert == str(tmp_path / "ca.pem")
        assert bool(tls.verify) == ("DOCKER_TLS_VERIFY" in variables)


def test_default_engine_is_local_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert engine_url("") == "unix:///var/run/docker.sock"
