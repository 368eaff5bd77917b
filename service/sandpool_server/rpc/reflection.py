"""Reflection: the contract, asked of the server itself."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionServicer

from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.drain import Drain, ServerStopping


class _Symbols:
    """The process's descriptors; in which, unlike in protobuf's own pool, the file of a method is found too."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """Raises `KeyError`."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


class Reflection(ServerReflectionServicer):
    """The library's reflection, with streams that end when the server stops."""

    def __init__(self, services: tuple[str, ...], drain: Drain) -> None:
        self._library = reflection.aio.ReflectionServicer(services, _Symbols())
        self._drain = drain

    async def ServerReflectionInfo(
        self,
        request_iterator: AsyncIterable[reflection_pb2.ServerReflectionRequest],
        context: Context,
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answers about descriptors."""
        # The library's stubs take its async generator for a coroutine function.
        answers = cast(
            AsyncIterator[reflection_pb2.ServerReflectionResponse],
            self._library.ServerReflectionInfo(request_iterator, context),
        )
        try:
            async for answer in self._drain.until(answers):
                yield answer
        except ServerStopping as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
