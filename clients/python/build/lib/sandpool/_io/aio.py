"""Waiting with asyncio. The twin of `blocking`: the same names, the same meaning."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message

from sandpool._core.address import Endpoint
from sandpool._core.call import Call, Page
from sandpool._core.retry import RetryPolicy
from sandpool._io.base import TransportBase, multicallable

ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


class _Enterable(Protocol):
    async def __aenter__(self) -> Any: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


OpenedT = TypeVar("OpenedT", bound=_Enterable)


class Transport(TransportBase):
    """One channel to one server for the tasks of one event loop at a time. It connects with the first call.

    In another event loop, that of a second `asyncio.run` or of a forked process, it opens a channel anew.
    """

    client_name = "AsyncSandboxClient"

    def __init__(
        self, endpoint: Endpoint, metadata: tuple[tuple[str, str], ...], timeout: float, retry: RetryPolicy
    ) -> None:
        super().__init__(endpoint, metadata, timeout, retry)
        self._closed = False
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._callables: dict[str, Any] = {}

    def _open(self, home: tuple[int, asyncio.AbstractEventLoop]) -> grpc.aio.Channel:
        options = self._endpoint.channel_options()
        self._home = home
        self._callables = {}
        self._channel = (
            grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(), options=options)
            if self._endpoint.tls
            else grpc.aio.insecure_channel(self.target, options=options)
        )
        return self._channel

    async def close(self) -> None:
        """Close the channel; calls under way end with ClientClosedError. A second time does nothing."""
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None and self._home == (os.getpid(), asyncio.get_running_loop()):
            await channel.close()

    async def call(self, call: Call[ResponseT, ResultT]) -> ResultT:
        """Make a call of one answer, again where that is safe and the server does not answer."""
        end = time.monotonic() + call.budget(self._timeout)
        attempt = 0
        while True:
            attempt += 1
            try:
                return call.convert(await self._send(call, call.request, end - time.monotonic()))
            except grpc.RpcError as failure:
                found = self._error(call, failure)
                pause = self._pause_after(call, found, attempt, end - time.monotonic())
                if pause is None:
                    raise found from failure
            await self.pause(pause)

    async def upload(self, call: Call[ResponseT, ResultT], requests: AsyncIterable[Message]) -> ResultT:
        """Make a call of many requests and one answer, once. `call.request` is the first of them."""
        source = _Source(call.request, requests)
        try:
            answer = await self._send(call, source, call.budget(self._timeout))
        except (grpc.RpcError, asyncio.CancelledError) as failure:
            if source.failure is not None:
                raise source.failure from None
            if isinstance(failure, asyncio.CancelledError):
                raise
            raise self._error(call, failure) from failure
        return call.convert(answer)

    async def pause(self, seconds: float) -> None:
        """Wait; a ClientClosedError where the client was closed meanwhile."""
        await asyncio.sleep(seconds)
        self._raise_if_closed()

    async def pages(self, page: Callable[[str], Call[ResponseT, Page[ItemT]]]) -> list[ItemT]:
        """All items of all pages; `page` makes the call for the page with a token."""
        items: list[ItemT] = []
        token = ""
        while True:
            found = await self.call(page(token))
            items.extend(found.items)
            token = found.next_page_token
            if not token:
                return items

    async def stream(
        self, call: Call[ResponseT, ResultT], on_open: Callable[[Callable[[], object]], None] | None = None
    ) -> AsyncGenerator[ResultT, None]:
        """Make a call of many answers; it ends when the iterator is closed. Without a timeout it lasts.

        `on_open` is given what ends the call from another thread; a task is cancelled instead, so here that does
        nothing.
        """
        if on_open is not None:
            on_open(lambda: None)
        first: Any = [call.request] if call.method.streams_requests else call.request
        answers = self._callable(call)(first, timeout=call.timeout, metadata=self._metadata)
        try:
            async for answer in answers:
                yield call.convert(answer)
        except grpc.RpcError as failure:
            raise self._error(call, failure) from failure
        except asyncio.CancelledError as cancelled:
            self._tell_closed_from(cancelled)
            raise
        finally:
            answers.cancel()

    def duplex(self, call: Call[ResponseT, ResultT]) -> Duplex[ResultT]:
        """Open a call of many requests, of which `call.request` is the first, and many answers."""
        return Duplex(self, call, self._callable(call)(timeout=call.timeout, metadata=self._metadata))

    async def _send(self, call: Call[ResponseT, ResultT], request: object, timeout: float) -> ResponseT:
        send = self._callable(call)
        try:
            return cast(ResponseT, await send(request, timeout=max(timeout, 0.0), metadata=self._metadata))
        except asyncio.CancelledError as cancelled:
            self._tell_closed_from(cancelled)
            raise

    def _tell_closed_from(self, cancelled: asyncio.CancelledError) -> None:
        """Raise ClientClosedError where the channel cancelled the call, and not somebody the task.

        grpc.aio says both in the same way. Python 3.10 cannot tell whether a task is being cancelled; there a client
        that is closed counts.
        """
        task = asyncio.current_task()
        cancelling = getattr(task, "cancelling", None)
        if self._closed and not (cancelling is not None and cancelling()):
            raise self._closed_error() from cancelled

    def _callable(self, call: Call[Any, Any]) -> Any:
        self._raise_if_closed()
        home = (os.getpid(), asyncio.get_running_loop())
        channel = self._channel
        if channel is None or self._home != home:
            channel = self._open(home)
        found = self._callables.get(call.method.path)
        if found is None:
            found = multicallable(channel, call.method, type(call.request))
            self._callables[call.method.path] = found
        return found

    def _is_closed(self) -> bool:
        return self._closed


class _Source:
    """The requests of an upload, and what failed when they were made: gRPC would hide that."""

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
    """A call that is open in both directions."""

    def __init__(self, transport: Transport, call: Call[Any, ResultT], stream: Any) -> None:
        self._transport = transport
        self._call = call
        self._stream = stream
        self._begun = False

    async def send(self, request: Message) -> None:
        """Send another request; waits until it is taken. Does nothing once the call has ended."""
        await self._begin()
        await self._write(request)

    async def end(self) -> None:
        """Say that no more requests follow."""
        await self._begin()
        if not self._stream.done():
            try:
                await self._stream.done_writing()
            except asyncio.InvalidStateError:
                return  # it has ended meanwhile

    async def receive(self) -> ResultT | None:
        """The next answer; None at the end."""
        await self._begin()
        try:
            answer = await self._stream.read()
        except grpc.RpcError as failure:
            raise self._transport._error(self._call, failure) from failure
        return None if answer is grpc.aio.EOF else self._call.convert(answer)

    async def cancel(self) -> None:
        """End the call now, if it has not ended."""
        self._stream.cancel()

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._write(self._call.request)

    async def _write(self, request: Message) -> None:
        if not self._stream.done():
            try:
                await self._stream.write(request)
            except (grpc.RpcError, asyncio.InvalidStateError):
                return  # it has ended: `receive` says how


class Opening(Coroutine[Any, Any, OpenedT]):
    """Something that is being opened: `await` gives it, `async with` also closes it at the end of the block.

    It is a coroutine too, so that `asyncio.create_task` and `asyncio.run` take it.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, OpenedT]) -> None:
        self._coroutine = coroutine
        self._opened: OpenedT | None = None

    def __await__(self) -> Generator[Any, Any, OpenedT]:
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        """Go on: for an event loop."""
        return self._coroutine.send(value)

    def throw(self, *failure: Any) -> Any:
        """Go on with an exception: for an event loop."""
        return self._coroutine.throw(*failure)

    def close(self) -> None:
        """Do not open it."""
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
    """Lets a caller await it or enter it."""
    return Opening(coroutine)


async def notify(callback: Callable[..., object], *arguments: object) -> None:
    """Call a caller's function, and wait for what it returns where that has to be awaited."""
    found = callback(*arguments)
    if inspect.isawaitable(found):
        await found


Lock = asyncio.Lock


async def in_thread(function: Callable[..., ItemT], *arguments: Any) -> ItemT:
    """Call a function that blocks, in a thread of its own."""
    return await asyncio.to_thread(function, *arguments)


async def both(first: Callable[[], Awaitable[None]], second: Callable[[], Awaitable[None]]) -> None:
    """Run two at once; returns when both have ended, with the error of one that failed."""
    tasks = [asyncio.ensure_future(_started(one)) for one in (first, second)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _started(function: Callable[[], Awaitable[None]]) -> None:
    await function()


class Background:
    """Something that runs beside its owner, which waits for its end or ends it."""

    def __init__(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        self._task = asyncio.create_task(_started(function), name=name)

    async def wait(self) -> None:
        """Wait for its end; raises what it raised."""
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """End it, if it has not ended."""
        if self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])


class Socket:
    """One connection of a listener on this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, size: int) -> bytes:
        """The next bytes, at most so many; none at the end, also when the other side has broken off."""
        try:
            return await self._reader.read(size)
        except OSError:
            return b""

    async def write(self, data: bytes) -> bool:
        """Write all; false where nobody takes it any more."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            return False
        return True

    async def end(self) -> None:
        """Say that nothing more is written."""
        with suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    async def close(self) -> None:
        """Close it in both directions."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class Listener:
    """Takes connections on a port of this machine and gives each to a handler, several at once."""

    def __init__(self, handler: Callable[[Socket], Awaitable[None]], name: str) -> None:
        self._handler = handler
        self._name = name
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self, host: str, port: int) -> None:
        """Begin to listen; port 0 means any. Raises OSError where it is taken."""
        self._server = await asyncio.start_server(self._take, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Take no more connections and end those that there are."""
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
            return  # by `close`, and nobody waits for this task
        finally:
            self._tasks.discard(task)
            await socket.close()
