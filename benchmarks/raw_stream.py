"""A raw stream with as many hops as a file transfer: the baseline of file throughput.

`python -m benchmarks.raw_stream end` replaces the agent: it discards received bytes and sends requested bytes.
`python -m benchmarks.raw_stream proxy ADDRESS` replaces the server: it passes messages on unchanged. Both print their
listen addresses.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

PART = 64 * 1024
WRITE, READ = "/raw/Write", "/raw/Read"
_CALL_SECS = 120.0


class _End:
    """Receives and sends bytes."""

    async def write(self, requests: AsyncIterator[bytes], _: Any) -> bytes:
        size = 0
        async for request in requests:
            size += len(request)
        return str(size).encode()

    async def read(self, request: bytes, context: Any) -> None:
        data = bytes(PART)
        for _ in range(int(request) // PART):
            await context.write(data)


class _Proxy:
    """Passes bytes on, with the same end-to-end flow control as the server."""

    def __init__(self, address: str) -> None:
        channel = grpc.aio.insecure_channel(address)
        self._write = channel.stream_unary(WRITE)
        self._read = channel.unary_stream(READ)

    async def write(self, requests: AsyncIterator[bytes], _: Any) -> bytes:
        call = self._write()
        async for request in requests:
            await call.write(request)
        await call.done_writing()
        answer: bytes = await call
        return answer

    async def read(self, request: bytes, context: Any) -> None:
        async for answer in self._read(request):
            await context.write(answer)


async def _serve(what: Any) -> None:
    server = grpc.aio.server()
    handlers = {
        "Write": grpc.stream_unary_rpc_method_handler(what.write),
        "Read": grpc.unary_stream_rpc_method_handler(what.read),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("raw", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def _main(role: str, *address: str) -> None:
    # Channels must be created on the event loop that uses them.
    await _serve(_Proxy(*address) if role == "proxy" else _End())


class RawStream:
    """A client of the proxy."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._write = channel.stream_unary(WRITE)
        self._read = channel.unary_stream(READ)

    def write(self, size: int) -> None:
        """Send `size` bytes in parts of 64 KiB."""
        data = bytes(PART)
        received = self._write((data for _ in range(size // PART)), timeout=_CALL_SECS)
        if int(received) != size:
            raise RuntimeError(f"the peer received {int(received)} of {size} bytes")

    def read(self, size: int) -> None:
        """Receive `size` bytes in parts of 64 KiB."""
        received = sum(len(part) for part in self._read(str(size).encode(), timeout=_CALL_SECS))
        if received != size:
            raise RuntimeError(f"received {received} of {size} bytes")


@contextmanager
def _process(*arguments: str) -> Iterator[str]:
    argv = [sys.executable, "-m", "benchmarks.raw_stream", *arguments]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def raw_stream() -> Iterator[RawStream]:
    """Start both processes, and return a context manager with a client."""
    with _process("end") as end, _process("proxy", end) as proxy, grpc.insecure_channel(proxy) as channel:
        yield RawStream(channel)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
