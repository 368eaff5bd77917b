"""An agent in place of ours that answers every call as a test says, in bytes: right, wrong, endless or not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

Behaviour = Callable[[str, Any], Awaitable[None]]
"""Answers a call of the method named; reads from, and writes bytes to, the context."""


class HostileAgent:
    """Answers by `behave`, which a test may change; `entered` and `cancelled` say what became of the last call."""

    def __init__(self) -> None:
        self.behave: Behaviour = silent
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.sent_bytes = 0

    def service(self, details: Any) -> Any:
        """The handler of any method: for gRPC all are streams of bytes in both directions."""

        async def call(_requests: Any, context: Any) -> None:
            self.entered.set()
            try:
                await self.behave(details.method, context)
            except BaseException:  # gRPC cancels a handler, or fails its writing, when the caller has gone
                self.cancelled.set()
                raise

        return grpc.stream_stream_rpc_method_handler(call)

    async def flood(self, _method: str, context: Any, message: bytes) -> None:
        """Send the same for ever."""
        while True:
            await context.write(message)
            self.sent_bytes += len(message)


async def silent(_method: str, _context: Any) -> None:
    """Answer nothing, for ever."""
    await asyncio.Event().wait()


def saying(*messages: bytes) -> Behaviour:
    """Send these, and end well."""

    async def behave(_method: str, context: Any) -> None:
        for message in messages:
            await context.write(message)

    return behave


@asynccontextmanager
async def serving(agent: HostileAgent) -> AsyncIterator[str]:
    """The agent's address."""
    handler = grpc.method_handlers_generic_handler("", {})
    handler.service = agent.service  # type: ignore[method-assign]
    server = grpc.aio.server(options=[("grpc.max_metadata_size", 1 << 20), ("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
