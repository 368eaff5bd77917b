"""A scripted agent that also accepts activation over plain TCP, correctly or in the way that a test specifies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sandpool_server.gen.agent.v1 import agent_service_pb2 as agent_pb
from sandpool_server.gen.agent.v1 import process_pb2
from tests.support.fake_usecases import Signal
from tests.support.scripted_agent import entrypoint_state

PREAMBLE = b"SPH1"
OnRequest = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def framed(content: bytes) -> bytes:
    """Return the content after its length."""
    return len(content).to_bytes(4) + content


class ActivationAgent:
    """Records tokens and requests of activation connections, and handles each request with `on_request`.

    It sends `greeting` before it reads a request.
    """

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.requests: list[agent_pb.ConfigureRequest] = []
        self.connections = 0
        """Number of open activation connections."""
        self.greeting = b""
        self.on_request: OnRequest = accept
        self.signal = Signal()
        """Notified when a connection begins, when it has sent a request, and when it ends."""

    @asynccontextmanager
    async def in_front_of(self, grpc_address: str) -> AsyncIterator[str]:
        """Listen on the loopback interface and yield the address.

        Connections without the preamble of an activation connection are forwarded to `grpc_address`.
        """
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                beginning = await reader.readexactly(len(PREAMBLE))
                if beginning == PREAMBLE:
                    await self._activation_connection(reader, writer)
                else:
                    await _forward(beginning, reader, writer, grpc_address)
            except (asyncio.IncompleteReadError, ConnectionError):
                return  # The other side closed the connection.
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

    async def _activation_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token = await _read_part(reader)
        self.tokens.append(token.decode())
        self.connections += 1
        self.signal.notify()
        writer.write(self.greeting)
        try:
            content = await _read_part(reader)
            self.requests.append(agent_pb.ConfigureRequest.FromString(content))
            self.signal.notify()
            await self.on_request(content, writer)
            await writer.drain()
        finally:
            self.connections -= 1
            self.signal.notify()


async def accept(content: bytes, writer: asyncio.StreamWriter) -> None:
    """Respond as the agent does."""
    started = agent_pb.ConfigureRequest.FromString(content).HasField("entrypoint")
    state = process_pb2.ENTRYPOINT_STATE_RUNNING if started else process_pb2.ENTRYPOINT_STATE_NONE
    writer.write(framed(entrypoint_state(state).SerializeToString()))


def sending(*parts: bytes) -> OnRequest:
    """Send the parts, each in a separate packet, then close the connection."""

    async def send(_content: bytes, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return send


async def no_response(_content: bytes, _writer: asyncio.StreamWriter) -> None:
    """Never respond."""
    await asyncio.Event().wait()


async def _read_part(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))


async def _forward(beginning: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
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
