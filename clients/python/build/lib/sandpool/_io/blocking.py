"""Waiting by blocking the thread. The twin of `aio`: the same names, the same meaning."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar, cast

import grpc
from google.protobuf.message import Message

from sandpool._core.address import Endpoint
from sandpool._core.call import Call, Page
from sandpool._core.retry import RetryPolicy
from sandpool._io.base import TransportBase, multicallable

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


class Transport(TransportBase):
    """One channel to one server, for any number of threads. It connects with the first call.

    A process that was forked off gets a channel of its own with its first call.
    """

    def __init__(
        self, endpoint: Endpoint, metadata: tuple[tuple[str, str], ...], timeout: float, retry: RetryPolicy
    ) -> None:
        super().__init__(endpoint, metadata, timeout, retry)
        self._closed = threading.Event()
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        options = self._endpoint.channel_options()
        self._channel = (
            grpc.secure_channel(self.target, grpc.ssl_channel_credentials(), options=options)
            if self._endpoint.tls
            else grpc.insecure_channel(self.target, options=options)
        )
        self._callables: dict[str, Any] = {}

    def close(self) -> None:
        """Close the channel; calls under way end with ClientClosedError. A second time does nothing."""
        self._closed.set()
        if self._pid == os.getpid():  # else it is the parent's channel, which goes on
            self._channel.close()

    def call(self, call: Call[ResponseT, ResultT]) -> ResultT:
        """Make a call of one answer, again where that is safe and the server does not answer."""
        end = time.monotonic() + call.budget(self._timeout)
        attempt = 0
        while True:
            attempt += 1
            try:
                return call.convert(self._send(call, call.request, end - time.monotonic()))
            except grpc.RpcError as failure:
                found = self._error(call, failure)
                pause = self._pause_after(call, found, attempt, end - time.monotonic())
                if pause is None:
                    raise found from failure
            self.pause(pause)

    def upload(self, call: Call[ResponseT, ResultT], requests: Iterable[Message]) -> ResultT:
        """Make a call of many requests and one answer, once. `call.request` is the first of them."""
        source = _Source(call.request, requests)
        try:
            answer = self._send(call, source, call.budget(self._timeout))
        except grpc.RpcError as failure:
            if source.failure is not None:
                raise source.failure from None
            raise self._error(call, failure) from failure
        return call.convert(answer)

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until the client is closed: that is a ClientClosedError."""
        if self._closed.wait(seconds):
            raise self._closed_error()

    def pages(self, page: Callable[[str], Call[ResponseT, Page[ItemT]]]) -> list[ItemT]:
        """All items of all pages; `page` makes the call for the page with a token."""
        items: list[ItemT] = []
        token = ""
        while True:
            found = self.call(page(token))
            items.extend(found.items)
            token = found.next_page_token
            if not token:
                return items

    def stream(
        self, call: Call[ResponseT, ResultT], on_open: Callable[[Callable[[], object]], None] | None = None
    ) -> Generator[ResultT, None, None]:
        """Make a call of many answers; it ends when the iterator is closed. Without a timeout it lasts.

        `on_open` is given what ends the call from another thread, with RequestCancelledError in this one.
        """
        first: Any = iter([call.request]) if call.method.streams_requests else call.request
        answers = self._callable(call)(first, timeout=call.timeout, metadata=self._metadata)
        if on_open is not None:
            on_open(answers.cancel)
        try:
            for answer in answers:
                yield call.convert(answer)
        except grpc.RpcError as failure:
            raise self._error(call, failure) from failure
        finally:
            answers.cancel()

    def duplex(self, call: Call[ResponseT, ResultT]) -> Duplex[ResultT]:
        """Open a call of many requests, of which `call.request` is the first, and many answers."""
        return Duplex(self, call, self._callable(call), self._metadata)

    def _send(self, call: Call[ResponseT, ResultT], request: object, timeout: float) -> ResponseT:
        send = self._callable(call)
        try:
            return cast(ResponseT, send(request, timeout=max(timeout, 0.0), metadata=self._metadata))
        except ValueError as failure:  # what grpc raises on a channel that another thread has just closed
            self._raise_if_closed(failure)
            raise

    def _callable(self, call: Call[Any, Any]) -> Any:
        self._raise_if_closed()
        if self._pid != os.getpid():
            self._open()
        found = self._callables.get(call.method.path)
        if found is None:
            found = multicallable(self._channel, call.method, type(call.request))
            self._callables[call.method.path] = found
        return found

    def _is_closed(self) -> bool:
        return self._closed.is_set()


class _Source:
    """The requests of an upload, and what failed when they were made: gRPC would hide that."""

    def __init__(self, first: Message, rest: Iterable[Message]) -> None:
        self._first: Message | None = first
        self._rest = iter(rest)
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            return next(self._rest)
        except StopIteration:
            raise
        except BaseException as failure:
            self.failure = failure
            raise


class Duplex(Generic[ResultT]):
    """A call that is open in both directions."""

    _WAITING = 4
    """How many requests may wait to be sent before `send` blocks."""

    def __init__(self, transport: Transport, call: Call[Any, ResultT], send: Any, metadata: object) -> None:
        self._transport = transport
        self._call = call
        self._requests: queue.Queue[Message | None] = queue.Queue(self._WAITING)
        self._requests.put(call.request)
        self._answers = send(iter(self._requests.get, None), timeout=call.timeout, metadata=metadata)

    def send(self, request: Message) -> None:
        """Send another request; waits while too many wait. Does nothing once the call has ended."""
        self._put(request)

    def end(self) -> None:
        """Say that no more requests follow."""
        self._put(None)

    def receive(self) -> ResultT | None:
        """The next answer; None at the end."""
        try:
            return self._call.convert(next(self._answers))
        except StopIteration:
            return None
        except grpc.RpcError as failure:
            raise self._transport._error(self._call, failure) from failure

    def cancel(self) -> None:
        """End the call now, if it has not ended."""
        self._answers.cancel()
        self._unblock()

    def _put(self, request: Message | None) -> None:
        while self._answers.is_active():
            try:
                self._requests.put(request, timeout=0.2)
            except queue.Full:
                continue  # the call may have ended meanwhile
            return
        self._unblock()

    def _unblock(self) -> None:
        """Let gRPC's thread that takes the requests end."""
        try:
            self._requests.put_nowait(None)
        except queue.Full:
            return


def opening(opened: ItemT) -> ItemT:
    """What was opened: here it is there already."""
    return opened


def notify(callback: Callable[..., object], *arguments: object) -> None:
    """Call a caller's function."""
    callback(*arguments)


Lock = threading.Lock


def in_thread(function: Callable[..., ItemT], *arguments: Any) -> ItemT:
    """Call a function that blocks."""
    return function(*arguments)


def both(first: Callable[[], None], second: Callable[[], None]) -> None:
    """Run two at once; returns when both have ended, with the error of one that failed."""
    other = Background(second, threading.current_thread().name)
    try:
        first()
    finally:
        other.wait()


class Background:
    """Something that runs beside its owner, which waits for its end or ends it."""

    def __init__(self, function: Callable[[], None], name: str) -> None:
        self._function = function
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as failure:
            self._failure = failure

    def wait(self) -> None:
        """Wait for its end; raises what it raised."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Wait for its end: a thread cannot be ended from outside, its owner has let go of what it waits for."""
        if self._thread is not threading.current_thread():
            self._thread.join()


class Socket:
    """One connection of a listener on this machine."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read(self, size: int) -> bytes:
        """The next bytes, at most so many; none at the end, also when the other side has broken off."""
        try:
            return self._connection.recv(size)
        except OSError:
            return b""

    def write(self, data: bytes) -> bool:
        """Write all; false where nobody takes it any more."""
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Say that nothing more is written."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it in both directions; a read or write under way in another thread ends."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Listener:
    """Takes connections on a port of this machine and gives each to a handler, several at once."""

    def __init__(self, handler: Callable[[Socket], None], name: str) -> None:
        self._handler = handler
        self._name = name
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: dict[Socket, Background] = {}
        self.port = 0

    def open(self, host: str, port: int) -> None:
        """Begin to listen; port 0 means any. Raises OSError where it is taken."""
        listener = socket.create_server((host, port))
        self._socket = listener
        self.port = listener.getsockname()[1]
        self._accepting = Background(lambda: self._accept(listener), f"{self._name} {self.port}")

    def close(self) -> None:
        """Take no more connections and end those that there are."""
        if self._socket is None:
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which ends an accept under way
        self._socket.close()
        self._accepting.wait()
        with self._lock:
            connections = dict(self._open)
        for connection in connections:
            connection.close()
        for background in connections.values():
            background.wait()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection = Socket(listener.accept()[0])
            except OSError:
                return  # closed
            with self._lock:
                self._open[connection] = Background(partial(self._take, connection), f"{self._name} {self.port}")

    def _take(self, connection: Socket) -> None:
        try:
            self._handler(connection)
        finally:
            connection.close()
            with self._lock:
                self._open.pop(connection, None)
