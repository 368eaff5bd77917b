"""The transport for asyncio. `threads` defines the same names with the same meaning."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message

from sandpool._core.address import Endpoint
from sandpool._core.call import Call, Page
from sandpool._core.retry import RetryPolicy
from sandpool._transport.base import TransportBase, multicallable
from sandpool.errors import RequestCancelledError

ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")

OnOutput = Callable[[str], object]
"""A callback for output as text. Its result is awaited if it is awaitable."""
OnData = Callable[[bytes], object]
"""A callback for output as bytes. Its result is awaited if it is awaitable."""
OnProgress = Callable[[int, int], object]
"""A callback for the number of transferred bytes and of all bytes. Its result is awaited if it is awaitable."""


class _Enterable(Protocol):
    async def __aenter__(self) -> Any: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


OpenedT = TypeVar("OpenedT", bound=_Enterable)


@dataclass
class _Connection:
    """The channel of one event loop in one process, and the callables of its methods."""

    channel: grpc.aio.Channel
    process: int
    callables: dict[str, Any] = field(default_factory=dict)


class Transport(TransportBase):
    """Sends calls to one server. Each event loop gets one channel, which is opened by the first call in that loop.

    The channel of an event loop that is closed is dropped when the next channel is opened. A forked process opens its
    own channels.
    """

    client_name = "AsyncSandboxClient"

    def __init__(
        self, endpoint: Endpoint, metadata: tuple[tuple[str, str], ...], timeout: float | None, retry: RetryPolicy
    ) -> None:
        super().__init__(endpoint, metadata, timeout, retry)
        self._closed = False
        self._lock, self._lock_process = threading.Lock(), os.getpid()
        self._connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection] = (
            weakref.WeakKeyDictionary()
        )

    def _connection(self) -> _Connection:
        """Return the connection of the running event loop, which is opened if there is none."""
        loop = asyncio.get_running_loop()
        found = self._connections.get(loop)
        if found is not None and found.process == os.getpid():
            return found
        with self._guard():
            self._raise_if_closed()
            # A channel refers to its event loop, so the weak keys alone do not remove the entry of a closed loop.
            for other in [other for other in self._connections if other.is_closed()]:
                del self._connections[other]
            found = self._connections[loop] = _Connection(self._open(), os.getpid())
            return found

    def _guard(self) -> threading.Lock:
        """Return the lock of the connections. A forked process gets a new one, because the old one may be held."""
        if self._lock_process != os.getpid():
            self._lock, self._lock_process = threading.Lock(), os.getpid()
        return self._lock

    def _open(self) -> grpc.aio.Channel:
        options = self._endpoint.channel_options()
        if self._endpoint.tls:
            return grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(), options=options)
        return grpc.aio.insecure_channel(self.target, options=options)

    async def close(self) -> None:
        """Close the channels; calls in progress fail with ClientClosedError. A second call does nothing."""
        with self._guard():
            self._closed = True
            connections = dict(self._connections)
            self._connections.clear()
        here = asyncio.get_running_loop()
        for loop, connection in connections.items():
            if connection.process != os.getpid() or loop.is_closed():
                continue  # The channel of the parent process stays open; the one of a closed loop cannot be closed.
            if loop is here:
                await connection.channel.close()
            else:
                with suppress(RuntimeError):  # The loop was closed in the meantime.
                    asyncio.run_coroutine_threadsafe(_close(connection.channel), loop)

    async def call(self, call: Call[ResponseT, ResultT]) -> ResultT:
        """Make a call with one response. It is retried if a retry is safe and the server does not respond."""
        limit = call.limit(self._timeout)
        end = None if limit is None else time.monotonic() + limit
        attempt = 0
        while True:
            attempt += 1
            try:
                return call.convert(await self._send(call, call.request, _left(end)))
            except grpc.RpcError as failure:
                found = self._error(call, failure)
                pause = self._pause_after(call, found, attempt, _left(end))
                if pause is None:
                    instead = call.recover(found) if attempt > 1 and call.recover is not None else None
                    if instead is None:
                        raise found from failure
                    return await self.call(instead)
            await self.pause(pause)

    async def upload(self, call: Call[ResponseT, ResultT], requests: AsyncIterable[Message]) -> ResultT:
        """Make a call with many requests and one response, once. `call.request` is the first request."""
        source = _Source(call.request, requests)
        try:
            response = await self._send(call, source, call.limit(self._timeout))
        except (grpc.RpcError, asyncio.CancelledError) as failure:
            if source.failure is not None:
                raise source.failure from None
            if isinstance(failure, asyncio.CancelledError):
                raise
            raise self._error(call, failure) from failure
        return call.convert(response)

    async def pause(self, seconds: float) -> None:
        """Wait. Raise ClientClosedError if the client was closed in the meantime."""
        await asyncio.sleep(seconds)
        self._raise_if_closed()

    async def pages(self, page: Callable[[str], Call[ResponseT, Page[ItemT]]]) -> AsyncGenerator[ItemT, None]:
        """Yield the items of all pages. A page is read when its first item is needed.

        `page` returns the call for the page with a token.
        """
        token = ""
        while True:
            found = await self.call(page(token))
            for item in found.items:
                yield item
            token = found.next_page_token
            if not token:
                return

    async def stream(
        self, call: Call[ResponseT, ResultT], on_open: Callable[[Callable[[], object]], None] | None = None
    ) -> AsyncGenerator[ResultT, None]:
        """Make a call with many responses, which ends when the iterator is closed.

        `on_open` receives a function that ends the call from another task. This task then gets a RequestCancelledError.
        """
        first: Any = [call.request] if call.method.streams_requests else call.request
        responses = self._callable(call)(first, timeout=call.stream_limit(), metadata=self._metadata)
        ended = False

        def end() -> None:
            nonlocal ended
            ended = True
            responses.cancel()

        if on_open is not None:
            on_open(end)
        try:
            async for response in responses:
                yield call.convert(response)
        except grpc.RpcError as failure:
            raise self._error(call, failure) from failure
        except asyncio.CancelledError as cancelled:
            self._raise_if_closed_by_client(cancelled)
            if ended and not _is_cancelling():
                raise RequestCancelledError("the client cancelled the call", code="CANCELLED") from cancelled
            raise
        finally:
            responses.cancel()

    def duplex(self, call: Call[ResponseT, ResultT]) -> Duplex[ResultT]:
        """Open a call with many requests, of which `call.request` is the first, and many responses."""
        return Duplex(self, call, self._callable(call)(timeout=call.stream_limit(), metadata=self._metadata))

    async def _send(self, call: Call[ResponseT, ResultT], request: object, timeout: float | None) -> ResponseT:
        send = self._callable(call)
        try:
            return cast(ResponseT, await send(request, timeout=timeout, metadata=self._metadata))
        except asyncio.CancelledError as cancelled:
            self._raise_if_closed_by_client(cancelled)
            raise

    def _raise_if_closed_by_client(self, cancelled: asyncio.CancelledError) -> None:
        """Raise ClientClosedError if the channel cancelled the call, and not the caller the task.

        grpc.aio reports both in the same way.
        """
        if self._closed and not _is_cancelling():
            raise self._closed_error() from cancelled

    def _callable(self, call: Call[Any, Any]) -> Any:
        self._raise_if_closed()
        connection = self._connection()
        found = connection.callables.get(call.method.path)
        if found is None:
            found = multicallable(connection.channel, call.method, type(call.request))
            connection.callables[call.method.path] = found
        return found

    def _is_closed(self) -> bool:
        return self._closed


def _is_cancelling() -> bool:
    """Return whether the current task is being cancelled. Python 3.10 does not report it; the result is then False."""
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)
    return cancelling is not None and bool(cancelling())


async def _close(channel: grpc.aio.Channel) -> None:
    await channel.close()


def _left(end: float | None) -> float | None:
    """Return the remaining time in seconds, or None for no limit."""
    return None if end is None else max(end - time.monotonic(), 0.0)


class _Source:
    """The requests of an upload, and the error of the iterator that produces them, which gRPC does not report."""

    def __init__(self, first: Message, rest: AsyncIterable[Message]) -> None:
        self._first: Message | None = first
        self._rest = aiter(rest)
        self.failure: BaseException | None = None

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            return await anext(self._rest)
        except StopAsyncIteration:
            raise
        except BaseException as failure:
            self.failure = failure
            raise


class Duplex(Generic[ResultT]):
    """A call that streams in both directions."""

    def __init__(self, transport: Transport, call: Call[Any, ResultT], stream: Any) -> None:
        self._transport = transport
        self._call = call
        self._stream = stream
        self._started = False

    async def send(self, request: Message) -> None:
        """Send another request, and wait until gRPC accepts it. Do nothing after the call has ended."""
        await self._start()
        await self._write(request)

    async def end(self) -> None:
        """Close the requests."""
        await self._start()
        if not self._stream.done():
            try:
                await self._stream.done_writing()
            except asyncio.InvalidStateError:
                return  # The call has ended in the meantime.

    async def receive(self) -> ResultT | None:
        """Return the next response, or None at the end."""
        await self._start()
        try:
            response = await self._stream.read()
        except grpc.RpcError as failure:
            raise self._transport._error(self._call, failure) from failure
        return None if response is grpc.aio.EOF else self._call.convert(response)

    async def cancel(self) -> None:
        """Cancel the call, if it has not ended."""
        self._stream.cancel()

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            await self._write(self._call.request)

    async def _write(self, request: Message) -> None:
        if not self._stream.done():
            try:
                await self._stream.write(request)
            except (grpc.RpcError, asyncio.InvalidStateError):
                return  # The call has ended; `receive` reports how.


class Opening(Coroutine[Any, Any, OpenedT]):
    """An object that is being opened: `await` returns it, `async with` also closes it at the end of the block.

    It is a coroutine as well, so that `asyncio.create_task` and `asyncio.run` accept it.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, OpenedT]) -> None:
        self._coroutine = coroutine
        self._opened: OpenedT | None = None

    def __await__(self) -> Generator[Any, Any, OpenedT]:
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        """Resume the coroutine, for an event loop."""
        return self._coroutine.send(value)

    def throw(self, *failure: Any) -> Any:
        """Resume the coroutine with an exception, for an event loop."""
        return self._coroutine.throw(*failure)

    def close(self) -> None:
        """Close the coroutine without opening the object."""
        self._coroutine.close()

    async def __aenter__(self) -> OpenedT:
        self._opened = await self._coroutine
        await self._opened.__aenter__()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(kind, error, trace)


def opening(coroutine: Coroutine[Any, Any, OpenedT]) -> Opening[OpenedT]:
    """Return an object that the caller can await or use with `async with`."""
    return Opening(coroutine)


async def notify(callback: Callable[..., object], *arguments: object) -> None:
    """Call a callback, and await its result if it is awaitable."""
    found = callback(*arguments)
    if inspect.isawaitable(found):
        await found


Lock = asyncio.Lock


async def in_thread(function: Callable[..., ItemT], *arguments: Any) -> ItemT:
    """Call a blocking function in another thread."""
    return await asyncio.to_thread(function, *arguments)


async def both(first: Callable[[], Awaitable[None]], second: Callable[[], Awaitable[None]]) -> None:
    """Run two functions at the same time. Return when both have ended; raise the error of one that failed."""
    tasks = [asyncio.ensure_future(_run(one)) for one in (first, second)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(function: Callable[[], Awaitable[None]]) -> None:
    await function()


class Background:
    """A function that runs in the background until its owner waits for it or stops it."""

    def __init__(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        self._task = asyncio.create_task(_run(function), name=name)

    async def wait(self) -> None:
        """Wait until the function returns, and raise its error."""
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop the function, if it is running."""
        if self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def discard(self) -> None:
        """Stop the function without waiting for it, and ignore its error."""
        self._task.cancel()
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())


class Socket:
    """One accepted connection of a listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`, or no bytes at the end or after a reset."""
        try:
            return await self._reader.read(size)
        except OSError:
            return b""

    async def write(self, data: bytes) -> bool:
        """Write all bytes. Return False if the connection is closed."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            return False
        return True

    async def end(self) -> None:
        """Close the direction of writing."""
        with suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    async def close(self) -> None:
        """Close both directions."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class Listener:
    """Accepts connections on a local port and passes each to a handler, several at the same time."""

    def __init__(self, handler: Callable[[Socket], Awaitable[None]], name: str) -> None:
        self._handler = handler
        self._name = name
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self, host: str, port: int) -> None:
        """Start listening. Port 0 means any free port. Raise OSError if the port is in use."""
        self._server = await asyncio.start_server(self._take, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and close the open connections."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        socket = Socket(reader, writer)
        try:
            await self._handler(socket)
        except asyncio.CancelledError:
            return  # `close` cancelled this task, and no task waits for it.
        finally:
            self._tasks.discard(task)
            await socket.close()
