"""A scripted agent that takes hand-overs without gRPC too, as it should or in ways that a test writes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sandpool.agent.v1 import agent_service_pb2 as agent_pb
from sandpool.agent.v1 import process_pb2
from tests.support.fake_usecases import Signal
from tests.support.scripted_agent import entrypoint_state

PREAMBLE = b"SPH1"
OnRequest = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def framed(content: bytes) -> bytes:
    """With its length before it."""
    return len(content).to_bytes(4) + content


class HandOverAgent:
    """What it was told on lines, and what it does when a request comes. `greeting` is said before any."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.requests: list[agent_pb.ConfigureRequest] = []
        self.lines = 0
        """Lines that are open now."""
        self.greeting = b""
        self.on_request: OnRequest = accept
        self.signal = Signal()
        """Notified at each line's begin, request and end."""

    @asynccontextmanager
    async def before(self, grpc_address: str) -> AsyncIterator[str]:
        """Listens on loopback and passes on to `grpc_address` what is no hand-over; gives its own address."""
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                beginning = await reader.readexactly(len(PREAMBLE))
                if beginning == PREAMBLE:
                    await self._line(reader, writer)
                else:
                    await _pass_on(beginning, reader, writer, grpc_address)
            except (asyncio.IncompleteReadError, ConnectionError):
                return  # The other side has ended it.
            finally:
                writer.close()
                tasks.discard(task)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token = await _part(reader)
        self.tokens.append(token.decode())
        self.lines += 1
        self.signal.notify()
        writer.write(self.greeting)
        try:
            content = await _part(reader)
            self.requests.append(agent_pb.ConfigureRequest.FromString(content))
            self.signal.notify()
            await self.on_request(content, writer)
            await writer.drain()
        finally:
            self.lines -= 1
            self.signal.notify()


async def accept(content: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer as an agent does."""
    started = agent_pb.ConfigureRequest.FromString(content).HasField("entrypoint")
    state = process_pb2.ENTRYPOINT_STATE_RUNNING if started else process_pb2.ENTRYPOINT_STATE_NONE
    writer.write(framed(entrypoint_state(state).SerializeToString()))


def saying(*parts: bytes) -> OnRequest:
    """Say these, in packets of their own, then end the line."""

    async def say(_content: bytes, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return say


async def silence(_content: bytes, _writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def _part(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))


async def _pass_on(beginning: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
    host, _, port = address.rpartition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    far_writer.write(beginning)

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, far_writer))
            group.create_task(pipe(far_reader, writer))
    finally:
        far_writer.close()
