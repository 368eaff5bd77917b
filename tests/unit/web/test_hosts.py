"""Host names of the API and of sandbox ports."""

import pytest

from sandpool_server.web.hosts import Hosts, SandboxPort

ID = "sbx-" + "0" * 20
HOSTS = Hosts("boxes.example", "https", None, frozenset({"api.example"}))


def test_each_port_has_its_own_host_name() -> None:
    assert HOSTS.url(SandboxPort(ID, 80)) == f"https://80-{ID}.boxes.example"
    assert Hosts("localhost", "http", 81).url(SandboxPort(ID, 80)) == f"http://80-{ID}.localhost:81"


@pytest.mark.parametrize("suffix", ["", ".", ":443", ".:443"])
def test_parses_host_name_of_port(suffix: str) -> None:
    for name in (f"80-{ID}.boxes.example", f"80-{ID}.Boxes.Example".upper().replace(ID.upper(), ID)):
        assert HOSTS.sandbox_port(name + suffix) == SandboxPort(ID, 80)
        assert not HOSTS.is_api(name + suffix)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "boxes.example",
        f"80-{ID}",
        f"80-{ID}.other.example",
        f"80-{ID}.boxes.example.evil",
        f"a.80-{ID}.boxes.example",
        f"0-{ID}.boxes.example",
        f"080-{ID}.boxes.example",
        f"65536-{ID}.boxes.example",
        f"80-{ID}x.boxes.example",
        "80-name.boxes.example",
        f"80{ID}.boxes.example",
    ],
)
def test_rejects_other_host_names_as_port(host: str) -> None:
    assert HOSTS.sandbox_port(host) is None


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8", "127.0.0.1:8", "[::1]:8", "::1", "10.0.0.1", "API.example", "boxes.example:1"]
)
def test_accepts_host_names_of_api(host: str) -> None:
    assert HOSTS.is_api(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "x.boxes.example"]
)
def test_rejects_other_host_names_as_api(host: str) -> None:
    assert not HOSTS.is_api(host)
