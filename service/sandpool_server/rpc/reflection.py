"""Reflection: clients read the contract, with its comments, from the server itself.

The library's servicer serves descriptors, and those have no comments. So the files of the contract are served here as
its descriptor set has them. Files that are not in it come from the generated modules: the standard services, and the
details of errors.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as messages

from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.contract import Contract, public_contract
from sandpool_server.rpc.drain import Drain, ServerStopping

PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
"""The versions of the protocol. They differ in the package's name alone; newer clients ask for the first."""
SERVICES = tuple(f"{package}.ServerReflection" for package in PACKAGES)


class Files:
    """Files of the contract and others, by their names and by their definitions.

    Methods raise `KeyError` where a definition is missing.
    """

    def __init__(self, contract: Contract, others: Iterable[FileDescriptorProto]) -> None:
        self._pool = DescriptorPool()
        self._files: dict[str, bytes] = {}
        self._imports: dict[str, tuple[str, ...]] = {}
        for data in contract.files.values():
            self._add(FileDescriptorProto.FromString(data), data)
        for file in others:
            self._add(file, file.SerializeToString())

    def named(self, name: str) -> list[bytes]:
        """Return the file of this name, serialized, and then all files that it imports."""
        found = dict.fromkeys((name,))
        queue = [name]
        while queue:
            new = [each for each in self._imports[queue.pop()] if each not in found]
            found |= dict.fromkeys(new)
            queue += new
        return [self._files[each] for each in found]

    def defining(self, symbol: str) -> list[bytes]:
        """Return the file that defines a symbol by its full name, and its imports."""
        try:
            return self.named(self._pool.FindFileContainingSymbol(symbol).name)
        except KeyError:
            return self.named(self._pool.FindMethodByName(symbol).containing_service.file.name)

    def extending(self, message: str, number: int) -> list[bytes]:
        """Return the file that defines an extension of a message, and its imports."""
        found = self._pool.FindExtensionByNumber(self._pool.FindMessageTypeByName(message), number)
        return self.named(self._pool.FindFileContainingSymbol(found.full_name).name)

    def extensions(self, message: str) -> list[int]:
        """Return the numbers of all extensions of a message."""
        found = self._pool.FindAllExtensions(self._pool.FindMessageTypeByName(message))
        return sorted(extension.number for extension in found)

    def _add(self, file: FileDescriptorProto, data: bytes) -> None:
        if file.name not in self._files:
            self._files[file.name] = data
            self._imports[file.name] = tuple(file.dependency)
            self._pool.AddSerializedFile(data)


class Reflection:
    """The service in both versions. Its streams end when the server stops."""

    def __init__(self, services: Iterable[str], drain: Drain, contract: Contract | None = None) -> None:
        self._services = sorted((*services, *SERVICES))
        self._drain = drain
        self._files = Files(contract or public_contract(), _standard_files())

    def register(self, server: grpc.aio.Server) -> None:
        """Add both versions to the server: their messages are the same on the wire."""
        handler = grpc.stream_stream_rpc_method_handler(
            self.ServerReflectionInfo,
            messages.ServerReflectionRequest.FromString,
            messages.ServerReflectionResponse.SerializeToString,
        )
        methods = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers(tuple(grpc.method_handlers_generic_handler(name, methods) for name in SERVICES))

    async def ServerReflectionInfo(
        self, requests: AsyncIterable[messages.ServerReflectionRequest], context: Context
    ) -> AsyncIterator[messages.ServerReflectionResponse]:
        """Respond to each request about descriptors."""
        try:
            async for response in self._drain.until(self._responses(requests)):
                yield response
        except ServerStopping as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)

    async def _responses(
        self, requests: AsyncIterable[messages.ServerReflectionRequest]
    ) -> AsyncIterator[messages.ServerReflectionResponse]:
        async for request in requests:
            try:
                response = self._response(request)
            except KeyError:
                response = _error_response(grpc.StatusCode.NOT_FOUND, "the server has no such definition")
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            yield response

    def _response(self, request: messages.ServerReflectionRequest) -> messages.ServerReflectionResponse:
        """Raises `KeyError` where the definition is missing."""
        match request.WhichOneof("message_request"):
            case "file_by_filename":
                return _files_response(self._files.named(request.file_by_filename))
            case "file_containing_symbol":
                return _files_response(self._files.defining(request.file_containing_symbol))
            case "file_containing_extension":
                extension = request.file_containing_extension
                return _files_response(self._files.extending(extension.containing_type, extension.extension_number))
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                numbers = self._files.extensions(name)
                found = messages.ExtensionNumberResponse(base_type_name=name, extension_number=numbers)
                return messages.ServerReflectionResponse(all_extension_numbers_response=found)
            case "list_services":
                services = [messages.ServiceResponse(name=name) for name in self._services]
                listed = messages.ListServiceResponse(service=services)
                return messages.ServerReflectionResponse(list_services_response=listed)
            case _:
                return _error_response(grpc.StatusCode.INVALID_ARGUMENT, "the request names nothing to return")


def _files_response(files: list[bytes]) -> messages.ServerReflectionResponse:
    found = messages.FileDescriptorResponse(file_descriptor_proto=files)
    return messages.ServerReflectionResponse(file_descriptor_response=found)


def _error_response(code: grpc.StatusCode, message: str) -> messages.ServerReflectionResponse:
    error = messages.ErrorResponse(error_code=code.value[0], error_message=message)
    return messages.ServerReflectionResponse(error_response=error)


def _standard_files() -> Iterator[FileDescriptorProto]:
    """Files that the contract does not import, each after its own imports."""
    for file in (health_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR):
        yield from _with_imports(file)
    current, alpha = PACKAGES
    for file in _with_imports(messages.DESCRIPTOR):
        yield file
        # There are no generated modules of v1. It is v1alpha under another name.
        text = text_format.MessageToString(file)
        text = text.replace(alpha, current).replace("/v1alpha/", "/v1/")
        yield text_format.Parse(text, FileDescriptorProto())


def _with_imports(file: Any) -> Iterator[FileDescriptorProto]:
    """Convert a `FileDescriptor` and the files that it imports, which come first."""
    for imported in file.dependencies:
        yield from _with_imports(imported)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    yield proto
