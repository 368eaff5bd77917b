"""The address of the server, and the options of a connection to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from sandpool._version import __version__

ADDRESS_VARIABLE = "SANDPOOL_ADDRESS"
API_KEY_VARIABLE = "SANDPOOL_API_KEY"
DEFAULT_ADDRESS = "127.0.0.1:50051"

# A result contains up to 1 MiB of each stream as text, which replacement characters can triple, and as bytes.
_MAX_RECEIVE_BYTES = 16 * 1024 * 1024
_PLAIN, _TLS = {"http", "grpc"}, {"https", "grpcs"}


@dataclass(frozen=True)
class Endpoint:
    """The address of a server."""

    target: str
    """The target for gRPC."""
    tls: bool
    """Whether the connection uses TLS."""
    loopback: bool
    """Whether the server runs on this machine."""

    def channel_options(self) -> list[tuple[str, str | int]]:
        """Return the options of a channel to the server."""
        options: list[tuple[str, str | int]] = [
            ("grpc.primary_user_agent", f"sandpool-python/{__version__}"),
            ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
            # During a call, a connection without traffic is probed after this time.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # gRPC also sends pings for other purposes. Without this limit, one of them delays the probe by a minute.
            ("grpc.http2.ping_timeout_ms", 10_000),
            # gRPC's default back-off between connections starts at one second. A restarted server is found sooner with
            # this.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if self.loopback:
            options.append(("grpc.enable_http_proxy", 0))  # A proxy of the environment cannot reach this machine.
        return options


def parse(address: str) -> Endpoint:
    """Parse an address such as `127.0.0.1:50051`, `https://host:443`, `[::1]:50051` or `unix:/path`.

    The schemes `https` and `grpcs` mean TLS; `http`, `grpc` and no scheme mean plain text. The default port is 50051,
    with TLS 443.

    Raises:
        ValueError: The address is not valid.
    """
    if address.startswith("unix:"):
        return Endpoint(address, tls=False, loopback=True)
    scheme, separator, rest = address.rpartition("://")
    if separator and scheme not in _PLAIN | _TLS:
        raise ValueError(f"unknown scheme {scheme!r} in the address {address!r}; use http:// or https://, or no scheme")
    tls = scheme in _TLS
    rest = rest.rstrip("/")
    if not rest or any(character in rest for character in "/@?# "):
        raise ValueError(f"{address!r} is not a valid address; use host:port, for example {DEFAULT_ADDRESS}")
    host, port = _split(rest)
    if port is None:
        port = "443" if tls else "50051"
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{port!r} in the address {address!r} is not a valid port; use 1 to 65535")
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(f"{shown}:{port}", tls=tls, loopback=_is_loopback(host))


def find(address: str | None, environment: Mapping[str, str]) -> Endpoint:
    """Return the given address, or the one of the environment, or the default."""
    return parse(address or environment.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS)


def credentials(api_key: str | None, environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the metadata of each call: the given key, or the one of the environment. An empty key is not sent."""
    key = environment.get(API_KEY_VARIABLE) if api_key is None else api_key
    return (("authorization", f"Bearer {key}"),) if key else ()


def _split(rest: str) -> tuple[str, str | None]:
    if rest.startswith("["):
        host, _, after = rest[1:].partition("]")
        return host, after[1:] if after.startswith(":") else None
    if rest.count(":") > 1:  # An IPv6 address without brackets has no port.
        return rest, None
    host, separator, port = rest.partition(":")
    return host, port if separator else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
