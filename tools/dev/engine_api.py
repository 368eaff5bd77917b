"""A client of the parts of the Docker Engine API that the setup needs, over a socket, TCP or TLS."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote, urlsplit

from tools.dev.console import StepFailed

PING_SECONDS = 5.0


class EngineError(StepFailed):
    """The engine returned an error, or cannot be reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message, "read the log of the engine; the usual cause is a full disk")
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class EngineClient:
    """A client of the engine at `host`, a DOCKER_HOST. A timeout limits each wait for data, not a whole call."""

    host: str

    def ping(self) -> bool:
        """Return whether the engine responds within a few seconds."""
        try:
            self._json("GET", "/_ping", timeout=PING_SECONDS)
        except EngineError:
            return False
        return True

    def mirrors(self) -> list[str]:
        """Return the host:port of each registry mirror that the engine currently uses."""
        info = cast(dict[str, dict[str, list[str]]], self._json("GET", "/info"))
        return [urlsplit(mirror).netloc for mirror in info["RegistryConfig"]["Mirrors"] or []]

    def has_image(self, name: str) -> bool:
        """Return whether the engine has an image with this name."""
        try:
            self._json("GET", f"/images/{quote(name)}/json")
        except EngineError as error:
            if error.status == 404:
                return False
            raise
        return True

    def pull(self, name: str, stall_seconds: float) -> None:
        """Pull an image. Raises `EngineError` if the pull fails or makes no progress for `stall_seconds`."""
        repository, _, tag = name.rpartition(":")
        path = f"/images/create?fromImage={quote(repository, safe='')}&tag={quote(tag)}"
        self._stream("POST", path, timeout=stall_seconds)

    def push(self, name: str, stall_seconds: float = 120.0) -> None:
        """Push an image to the registry in its name."""
        repository, _, tag = name.rpartition(":")
        anonymous = base64.urlsafe_b64encode(b"{}").decode()
        path = f"/images/{quote(repository)}/push?tag={quote(tag)}"
        self._stream("POST", path, headers={"X-Registry-Auth": anonymous}, timeout=stall_seconds)

    def import_image(self, tar: Path, name: str, changes: tuple[str, ...]) -> None:
        """Create an image with one layer from a tar archive of a root file system."""
        repository, _, tag = name.rpartition(":")
        path = f"/images/create?fromSrc=-&repo={quote(repository, safe='')}&tag={quote(tag)}"
        path += "".join(f"&changes={quote(change, safe='')}" for change in changes)
        headers = {"Content-Type": "application/x-tar", "Content-Length": str(tar.stat().st_size)}
        with tar.open("rb") as body:
            self._stream("POST", path, headers=headers, body=body, timeout=300.0)

    def tag(self, name: str, other: str) -> None:
        """Give an image a second name."""
        repository, _, tag = other.rpartition(":")
        self._json("POST", f"/images/{quote(name)}/tag?repo={quote(repository)}&tag={quote(tag)}")

    def untag(self, name: str) -> None:
        """Remove a name from an image. If it was the last name, the image is removed."""
        self._json("DELETE", f"/images/{quote(name)}")

    def remove_labelled(self, label: str) -> int:
        """Remove all containers and networks with the label. Returns their number."""
        filters = quote(json.dumps({"label": [label]}))
        containers = self._json("GET", f"/containers/json?all=1&filters={filters}")
        networks = self._json("GET", f"/networks?filters={filters}")
        for item in cast(list[dict[str, str]], containers):
            self._ignore_missing("DELETE", f"/containers/{item['Id']}?force=1&v=1")
        for item in cast(list[dict[str, str]], networks):
            self._ignore_missing("DELETE", f"/networks/{item['Id']}")
        return len(cast(list[object], containers)) + len(cast(list[object], networks))

    def _ignore_missing(self, method: str, path: str) -> None:
        try:
            self._json(method, path)
        except EngineError as error:
            if error.status not in (403, 404, 409):
                raise

    def _json(self, method: str, path: str, timeout: float = 60.0) -> object:
        body = b"".join(self._call(method, path, {}, None, timeout))
        try:
            return json.loads(body) if body.strip() else None
        except ValueError:
            return body.decode(errors="replace")

    def _stream(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        body: IO[bytes] | None = None,
    ) -> None:
        """Send a request whose response is a stream of JSON lines, which may contain an error."""
        for line in self._call(method, path, headers or {}, body, timeout):
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict) and "error" in message:
                raise EngineError(str(message["error"]))

    def _call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: IO[bytes] | None,
        timeout: float,
    ) -> Iterator[bytes]:
        connection = _connect(self.host, timeout)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            response = connection.getresponse()
            if response.status >= 400:
                raise EngineError(_reason(response.read()), response.status)
            yield from response
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"cannot reach the engine at {self.host}: {error or 'no response'}") from error
        finally:
            connection.close()


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


def _connect(host: str, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(host)
    if parts.scheme == "unix":
        return _UnixConnection(parts.path, timeout)
    if parts.scheme in ("tcp", "http", "https") and parts.hostname:
        secure = parts.scheme == "https" or bool(os.environ.get("DOCKER_TLS_VERIFY"))
        port = parts.port or (2376 if secure else 2375)
        if not secure:
            return http.client.HTTPConnection(parts.hostname, port, timeout=timeout)
        context = _tls_context()
        return http.client.HTTPSConnection(parts.hostname, port, timeout=timeout, context=context)
    raise StepFailed(
        f"the setup does not support the engine address {host}",
        "set DOCKER_HOST to a unix:// or tcp:// address (ssh -L can forward one), or unset it",
    )


def _tls_context() -> ssl.SSLContext:
    directory = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context
