"""The files of one sandbox, called through the gRPC stubs."""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, ResourceInfo
from grpc_status import rpc_status

from sandpool.v1 import file_service_pb2 as messages
from sandpool.v1.file_pb2 import FileInfo
from sandpool_server.gen.v1.file_service_pb2_grpc import FileServiceStub

PART = 64 * 1024
CALL_SECS = 60.0


class SandboxFiles:
    """The files of one sandbox of a server. Every call has a deadline."""

    def __init__(self, channel: grpc.Channel, sandbox_id: str) -> None:
        self.stub = FileServiceStub(channel)
        self.sandbox_id = sandbox_id

    def call(self, method: str, **fields: Any) -> Any:
        """Call a unary method."""
        request = getattr(messages, f"{method}Request")(sandbox_id=self.sandbox_id, **fields)
        return getattr(self.stub, method)(request, timeout=CALL_SECS)

    def stream(self, method: str, **fields: Any) -> Any:
        """Call a server-streaming method."""
        request = getattr(messages, f"{method}Request")(sandbox_id=self.sandbox_id, **fields)
        return getattr(self.stub, method)(request, timeout=2 * CALL_SECS)

    def read(self, path: str, **fields: Any) -> bytes:
        """Return the content of a file or of a part of it."""
        responses = self.stream("ReadFile", path=path, **fields)
        assert next(responses).WhichOneof("part") == "file"
        return b"".join(response.data for response in responses)

    def write(self, path: str, data: bytes | Iterable[bytes], **fields: Any) -> FileInfo:
        """Write a file in the given parts, or in parts of 64 KiB."""
        parts = (data[at : at + PART] for at in range(0, len(data), PART)) if isinstance(data, bytes) else data
        target = messages.WriteFileTarget(sandbox_id=self.sandbox_id, path=path, **fields)

        def requests() -> Iterator[messages.WriteFileRequest]:
            yield messages.WriteFileRequest(target=target)
            for part in parts:
                yield messages.WriteFileRequest(data=part)

        file: FileInfo = self.stub.WriteFile(requests(), timeout=2 * CALL_SECS).file
        return file

    def put(self, path: str, data: bytes, *, more: bool = False, **fields: Any) -> Any:
        """Write a file, or a part of a file, in a single message."""
        target = messages.WriteFileTarget(sandbox_id=self.sandbox_id, path=path, **fields)
        return self.stub.PutFile(messages.PutFileRequest(target=target, data=data, more=more), timeout=CALL_SECS)

    def download(self, path: str) -> tarfile.TarFile:
        """Download a directory as a tar archive."""
        parts = self.stream("DownloadDirectory", path=path)
        return tarfile.open(fileobj=io.BytesIO(b"".join(part.data for part in parts)))

    def upload(self, path: str, archive: bytes, **fields: Any) -> messages.UploadDirectoryResponse:
        """Write a directory from a tar archive."""
        target = messages.UploadDirectoryTarget(sandbox_id=self.sandbox_id, path=path, **fields)

        def requests() -> Iterator[messages.UploadDirectoryRequest]:
            yield messages.UploadDirectoryRequest(target=target)
            for at in range(0, len(archive), PART):
                yield messages.UploadDirectoryRequest(data=archive[at : at + PART])

        response: messages.UploadDirectoryResponse = self.stub.UploadDirectory(requests(), timeout=2 * CALL_SECS)
        return response


@contextmanager
def sandbox_files(address: str, sandbox_id: str) -> Iterator[SandboxFiles]:
    """Yield the files of a sandbox of the server at an address."""
    with grpc.insecure_channel(address) as channel:
        yield SandboxFiles(channel, sandbox_id)


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return an archive of these entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    """Return an entry for `tar_of`."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, linkname, mode
    return entry


def refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, str]:
    """Return the code of a failed call, its reason and its resource name. Absent values are empty."""
    assert isinstance(error, grpc.Call)
    info, resource = ErrorInfo(), ResourceInfo()
    status = rpc_status.from_call(error)
    details: list[AnyMessage] = list(status.details) if status is not None else []
    for detail in details:
        detail.Unpack(info)
        detail.Unpack(resource)
    return error.code(), info.reason, resource.resource_name


def noise(size: int) -> Iterator[bytes]:
    """Yield `size` bytes in different parts of 1 MiB."""
    base = os.urandom(1 << 20)
    for at in range(0, size, len(base)):
        part = at.to_bytes(8, "big") + base[8:]
        yield part[: min(len(base), size - at)]
