"""An agent that responds to every call with the bytes that a test specifies: valid, invalid, endless or none."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

Behaviour = Callable[[str, Any], Awaitable[None]]
"""Handles a call of the named method; writes bytes to the context."""


class HostileAgent:
    """Handles calls with `behave`, which a test can change.

    `entered` is set when a call arrives, `cancelled` when a call was cancelled or its writing failed.
    """

    def __init__(self) -> None:
        self.behave: Behaviour = no_response
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.sent_bytes = 0

    def service(self, details: Any) -> Any:
        """Return the handler of every method: gRPC handles each as a bidirectional stream of bytes."""

        async def call(_requests: Any, context: Any) -> None:
            self.entered.set()
            try:
                await self.behave(details.method, context)
            except BaseException:  # gRPC cancels a handler, or fails its writing, when the caller disconnects
                self.cancelled.set()
                raise

        return grpc.stream_stream_rpc_method_handler(call)

    async def flood(self, _method: str, context: Any, message: bytes) -> None:
        """Send the same message forever."""
        while True:
            await context.write(message)
            self.sent_bytes += len(message)


async def no_response(_method: str, _context: Any) -> None:
    """Never respond."""
    await asyncio.Event().wait()


def sending(*messages: bytes) -> Behaviour:
    """Send the messages, and end the call with status OK."""

    async def behave(_method: str, context: Any) -> None:
        for message in messages:
            await context.write(message)

    return behave


@asynccontextmanager
async def serving(agent: HostileAgent) -> AsyncIterator[str]:
    """Run the agent and yield its address."""
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
