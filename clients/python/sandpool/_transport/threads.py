"""The transport that blocks the calling thread. `asyncio` defines the same names with the same meaning."""

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
from sandpool._transport.base import TransportBase, multicallable

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")

OnOutput = Callable[[str], object]
"""A callback for output as text."""
OnData = Callable[[bytes], object]
"""A callback for output as bytes."""
OnProgress = Callable[[int, int], object]
"""A callback for the number of transferred bytes and of all bytes."""


class Transport(TransportBase):
    """Sends calls to one server over one channel, for any number of threads. The first call connects.

    A forked process opens its own channel with its first call.
    """

    def __init__(
        self, endpoint: Endpoint, metadata: tuple[tuple[str, str], ...], timeout: float | None, retry: RetryPolicy
    ) -> None:
        super().__init__(endpoint, metadata, timeout, retry)
        self._closed = threading.Event()
        self._open()

    def _open(self) -> None:
        self._process = os.getpid()
        options = self._endpoint.channel_options()
        self._channel = (
            grpc.secure_channel(self.target, grpc.ssl_channel_credentials(), options=options)
            if self._endpoint.tls
            else grpc.insecure_channel(self.target, options=options)
        )
        self._callables: dict[str, Any] = {}

    def close(self) -> None:
        """Close the channel; calls in progress fail with ClientClosedError. A second call does nothing."""
        self._closed.set()
        if self._process == os.getpid():  # Otherwise the channel belongs to the parent process, which keeps it open.
            self._channel.close()

    def call(self, call: Call[ResponseT, ResultT]) -> ResultT:
        """Make a call with one response. It is retried if a retry is safe and the server does not respond."""
        limit = call.limit(self._timeout)
        end = None if limit is None else time.monotonic() + limit
        attempt = 0
        while True:
            attempt += 1
            try:
                return call.convert(self._send(call, call.request, _left(end)))
            except grpc.RpcError as failure:
                found = self._error(call, failure)
                pause = self._pause_after(call, found, attempt, _left(end))
                if pause is None:
                    instead = call.recover(found) if attempt > 1 and call.recover is not None else None
                    if instead is None:
                        raise found from failure
                    return self.call(instead)
            self.pause(pause)

    def upload(self, call: Call[ResponseT, ResultT], requests: Iterable[Message]) -> ResultT:
        """Make a call with many requests and one response, once. `call.request` is the first request."""
        source = _Source(call.request, requests)
        try:
            response = self._send(call, source, call.limit(self._timeout))
        except grpc.RpcError as failure:
            if source.failure is not None:
                raise source.failure from None
            raise self._error(call, failure) from failure
        return call.convert(response)

    def pause(self, seconds: float) -> None:
        """Wait. Raise ClientClosedError as soon as the client is closed."""
        if self._closed.wait(seconds):
            raise self._closed_error()

    def pages(self, page: Callable[[str], Call[ResponseT, Page[ItemT]]]) -> Generator[ItemT, None, None]:
        """Yield the items of all pages. A page is read when its first item is needed.

        `page` returns the call for the page with a token.
        """
        token = ""
        while True:
            found = self.call(page(token))
            yield from found.items
            token = found.next_page_token
            if not token:
                return

    def stream(
        self, call: Call[ResponseT, ResultT], on_open: Callable[[Callable[[], object]], None] | None = None
    ) -> Generator[ResultT, None, None]:
        """Make a call with many responses, which ends when the iterator is closed.

        `on_open` receives a function that ends the call from another thread. This thread then gets a
        RequestCancelledError.
        """
        first: Any = iter([call.request]) if call.method.streams_requests else call.request
        responses = self._callable(call)(first, timeout=call.stream_limit(), metadata=self._metadata)
        if on_open is not None:
            on_open(responses.cancel)
        try:
            for response in responses:
                yield call.convert(response)
        except grpc.RpcError as failure:
            raise self._error(call, failure) from failure
        finally:
            responses.cancel()

    def duplex(self, call: Call[ResponseT, ResultT]) -> Duplex[ResultT]:
        """Open a call with many requests, of which `call.request` is the first, and many responses."""
        return Duplex(self, call, self._callable(call), self._metadata)

    def _send(self, call: Call[ResponseT, ResultT], request: object, timeout: float | None) -> ResponseT:
        send = self._callable(call)
        try:
            return cast(ResponseT, send(request, timeout=timeout, metadata=self._metadata))
        except ValueError as failure:  # gRPC raises this on a channel that another thread has closed.
            self._raise_if_closed(failure)
            raise

    def _callable(self, call: Call[Any, Any]) -> Any:
        self._raise_if_closed()
        if self._process != os.getpid():
            self._open()
        found = self._callables.get(call.method.path)
        if found is None:
            found = multicallable(self._channel, call.method, type(call.request))
            self._callables[call.method.path] = found
        return found

    def _is_closed(self) -> bool:
        return self._closed.is_set()


def _left(end: float | None) -> float | None:
    """Return the remaining time in seconds, or None for no limit."""
    return None if end is None else max(end - time.monotonic(), 0.0)


class _Source:
    """The requests of an upload, and the error of the iterator that produces them, which gRPC does not report."""

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
    """A call that streams in both directions."""

    _WAITING = 4
    """The number of requests that are queued before `send` blocks."""

    def __init__(self, transport: Transport, call: Call[Any, ResultT], send: Any, metadata: object) -> None:
        self._transport = transport
        self._call = call
        self._requests: queue.Queue[Message | None] = queue.Queue(self._WAITING)
        self._requests.put(call.request)
        self._responses = send(iter(self._requests.get, None), timeout=call.stream_limit(), metadata=metadata)

    def send(self, request: Message) -> None:
        """Send another request, and wait while the queue is full. Do nothing after the call has ended."""
        self._put(request)

    def end(self) -> None:
        """Close the requests."""
        self._put(None)

    def receive(self) -> ResultT | None:
        """Return the next response, or None at the end."""
        try:
            return self._call.convert(next(self._responses))
        except StopIteration:
            return None
        except grpc.RpcError as failure:
            raise self._transport._error(self._call, failure) from failure

    def cancel(self) -> None:
        """Cancel the call, if it has not ended."""
        self._responses.cancel()
        self._unblock()

    def _put(self, request: Message | None) -> None:
        while self._responses.is_active():
            try:
                self._requests.put(request, timeout=0.2)
            except queue.Full:
                continue  # The call may have ended in the meantime.
            return
        self._unblock()

    def _unblock(self) -> None:
        """Let the thread of gRPC that reads the requests end."""
        try:
            self._requests.put_nowait(None)
        except queue.Full:
            return


def opening(opened: ItemT) -> ItemT:
    """Return the object, which is open already."""
    return opened


def notify(callback: Callable[..., object], *arguments: object) -> None:
    """Call a callback."""
    callback(*arguments)


Lock = threading.Lock


def in_thread(function: Callable[..., ItemT], *arguments: Any) -> ItemT:
    """Call a blocking function."""
    return function(*arguments)


def both(first: Callable[[], None], second: Callable[[], None]) -> None:
    """Run two functions at the same time. Return when both have ended; raise the error of one that failed."""
    other = Background(second, threading.current_thread().name)
    try:
        first()
    finally:
        other.wait()


class Background:
    """A function that runs in the background until its owner waits for it or stops it."""

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
        """Wait until the function returns, and raise its error."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Wait until the function returns. A thread cannot be stopped; its owner ends the call that it waits for."""
        if self._thread is not threading.current_thread():
            self._thread.join()

    def discard(self) -> None:
        """Let the function end by itself without waiting for it, and ignore its error."""


class Socket:
    """One accepted connection of a listener."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`, or no bytes at the end or after a reset."""
        try:
            return self._connection.recv(size)
        except OSError:
            return b""

    def write(self, data: bytes) -> bool:
        """Write all bytes. Return False if the connection is closed."""
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Close the direction of writing."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions. A read or write in another thread ends."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Listener:
    """Accepts connections on a local port and passes each to a handler, several at the same time."""

    def __init__(self, handler: Callable[[Socket], None], name: str) -> None:
        self._handler = handler
        self._name = name
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: dict[Socket, Background] = {}
        self.port = 0

    def open(self, host: str, port: int) -> None:
        """Start listening. Port 0 means any free port. Raise OSError if the port is in use."""
        listener = socket.create_server((host, port))
        self._socket = listener
        self.port = listener.getsockname()[1]
        self._accepting = Background(lambda: self._accept(listener), f"{self._name} {self.port}")

    def close(self) -> None:
        """Stop listening and close the open connections."""
        if self._socket is None:
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # This ends a blocked accept.
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
                return  # The listener is closed.
            with self._lock:
                self._open[connection] = Background(partial(self._take, connection), f"{self._name} {self.port}")

    def _take(self, connection: Socket) -> None:
        try:
            self._handler(connection)
        finally:
            connection.close()
            with self._lock:
                self._open.pop(connection, None)
