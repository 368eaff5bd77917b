"""Where the server is, and how to speak to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from sandpool._version import __version__

ADDRESS_VARIABLE = "SANDPOOL_ADDRESS"
API_KEY_VARIABLE = "SANDPOOL_API_KEY"
DEFAULT_ADDRESS = "127.0.0.1:50051"

# Both streams of a command come with up to 1 MiB each, as text that replacement characters may triple, and as bytes.
_MAX_RECEIVE_BYTES = 16 * 1024 * 1024
_PLAIN, _TLS = {"http", "grpc"}, {"https", "grpcs"}


@dataclass(frozen=True)
class Endpoint:
    """A server: gRPC's target, whether with TLS, and whether it is on this machine."""

    target: str
    tls: bool
    loopback: bool

    def channel_options(self) -> list[tuple[str, str | int]]:
        """Options for a channel to it."""
        options: list[tuple[str, str | int]] = [
            ("grpc.primary_user_agent", f"sandpool-python/{__version__}"),
            ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
            # A connection that is silent for this long while a call is under way is asked for a sign of life.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # gRPC has pings of its own as well, and would give one that is under way a minute before it asks itself.
            ("grpc.http2.ping_timeout_ms", 10_000),
            # gRPC's own back-off between connections begins at a second: a server that restarts is found sooner.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if self.loopback:
            options.append(("grpc.enable_http_proxy", 0))  # no proxy of the environment leads to this machine
        return options


def parse(address: str) -> Endpoint:
    """An address such as `127.0.0.1:50051`, `https://host:443`, `[::1]:50051` or `unix:/path`.

    `https` and `grpcs` mean TLS; `http`, `grpc` and none mean plain text. Without a port it is 50051, with TLS 443.
    Raises ValueError for anything else.
    """
    if address.startswith("unix:"):
        return Endpoint(address, tls=False, loopback=True)
    scheme, separator, rest = address.rpartition("://")
    if separator and scheme not in _PLAIN | _TLS:
        raise ValueError(f"unknown scheme {scheme!r} in the address {address!r}; use http:// or https://, or none")
    tls = scheme in _TLS
    rest = rest.rstrip("/")
    if not rest or any(character in rest for character in "/@?# "):
        raise ValueError(f"{address!r} is not an address; use host:port, such as {DEFAULT_ADDRESS}")
    host, port = _split(rest)
    if port is None:
        port = "443" if tls else "50051"
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{port!r} is not a port in the address {address!r}; use 1 to 65535")
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(f"{shown}:{port}", tls=tls, loopback=_is_loopback(host))


def find(address: str | None, environment: Mapping[str, str]) -> Endpoint:
    """The address given, or the environment's, or the default."""
    return parse(address or environment.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS)


def credentials(api_key: str | None, environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The metadata of each call: the key given, or the environment's; nothing where there is none or it is empty."""
    key = environment.get(API_KEY_VARIABLE) if api_key is None else api_key
    return (("authorization", f"Bearer {key}"),) if key else ()


def _split(rest: str) -> tuple[str, str | None]:
    if rest.startswith("["):
        host, _, after = rest[1:].partition("]")
        return host, after[1:] if after.startswith(":") else None
    if rest.count(":") > 1:  # an IPv6 address without brackets has no port
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
