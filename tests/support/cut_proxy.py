"""A TCP proxy on the loopback interface whose connections a test can break."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class CutProxy:
    """Forwards bytes in both directions. `cut` resets every connection; with `refusing`, new connections are refused.

    With `cut_every`, each connection breaks after this number of bytes from the server.
    """

    def __init__(self, target: str, *, cut_every: int | None = None) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._cut_every = cut_every
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._muted: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []
        self.refusing = False
        self.connections = 0
        self.cuts = 0

    @property
    def address(self) -> str:
        """The address for clients, HOST:PORT."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> int:
        """Break all connections and return their number."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._break(pair)
        return len(pairs)

    def mute(self) -> int:
        """Drop all bytes on existing connections, like a broken network. Return the number of connections."""
        with self._lock:
            self._muted |= self._pairs
            return len(self._pairs)

    def _run(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
                self.connections += 1
            self._run(self._forward, pair, client, server, None)
            self._run(self._forward, pair, server, client, self._cut_every)

    def _forward(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket, limit: int | None
    ) -> None:
        forwarded = 0
        with suppress(OSError):
            while data := source.recv(65536):
                if pair in self._muted:
                    continue
                if limit is not None and forwarded + len(data) > limit:
                    sink.sendall(data[: limit - forwarded])
                    break
                forwarded += len(data)
                sink.sendall(data)
        self._break(pair)

    def _break(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
            self.cuts += 1
        for one in pair:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
