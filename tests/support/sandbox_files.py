"""The files of one sandbox, by the bare stubs."""

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
from sandpool.v1.file_service_pb2_grpc import FileServiceStub

PART = 64 * 1024
CALL_SECS = 60.0


class SandboxFiles:
    """One sandbox's files through a server; every call has a deadline."""

    def __init__(self, channel: grpc.Channel, sandbox_id: str) -> None:
        self.stub = FileServiceStub(channel)
        self.sandbox_id = sandbox_id

    def call(self, method: str, **fields: Any) -> Any:
        """A method of one request and one answer."""
        request = getattr(messages, f"{method}Request")(sandbox_id=self.sandbox_id, **fields)
        return getattr(self.stub, method)(request, timeout=CALL_SECS)

    def stream(self, method: str, **fields: Any) -> Any:
        """A method of one request and many answers."""
        request = getattr(messages, f"{method}Request")(sandbox_id=self.sandbox_id, **fields)
        return getattr(self.stub, method)(request, timeout=2 * CALL_SECS)

    def read(self, path: str, **fields: Any) -> bytes:
        """A file's bytes, or those of a part."""
        answers = self.stream("ReadFile", path=path, **fields)
        assert next(answers).WhichOneof("part") == "file"
        return b"".join(answer.data for answer in answers)

    def write(self, path: str, data: bytes | Iterable[bytes], **fields: Any) -> FileInfo:
        """Write a file, in the parts as given or in parts of 64 KiB."""
        parts = (data[at : at + PART] for at in range(0, len(data), PART)) if isinstance(data, bytes) else data
        target = messages.WriteFileTarget(sandbox_id=self.sandbox_id, path=path, **fields)

        def requests() -> Iterator[messages.WriteFileRequest]:
            yield messages.WriteFileRequest(target=target)
            for part in parts:
                yield messages.WriteFileRequest(data=part)

        file: FileInfo = self.stub.WriteFile(requests(), timeout=2 * CALL_SECS).file
        return file

    def put(self, path: str, data: bytes, *, more: bool = False, **fields: Any) -> Any:
        """Write a file, or a part of one, in a single message."""
        target = messages.WriteFileTarget(sandbox_id=self.sandbox_id, path=path, **fields)
        return self.stub.PutFile(messages.PutFileRequest(target=target, data=data, more=more), timeout=CALL_SECS)

    def download(self, path: str) -> tarfile.TarFile:
        """A folder."""
        parts = self.stream("DownloadFolder", path=path)
        return tarfile.open(fileobj=io.BytesIO(b"".join(part.data for part in parts)))

    def upload(self, path: str, archive: bytes, **fields: Any) -> messages.UploadFolderResponse:
        """Write a folder from a tar archive."""
        target = messages.UploadFolderTarget(sandbox_id=self.sandbox_id, path=path, **fields)

        def requests() -> Iterator[messages.UploadFolderRequest]:
            yield messages.UploadFolderRequest(target=target)
            for at in range(0, len(archive), PART):
                yield messages.UploadFolderRequest(data=archive[at : at + PART])

        answer: messages.UploadFolderResponse = self.stub.UploadFolder(requests(), timeout=2 * CALL_SECS)
        return answer


@contextmanager
def sandbox_files(address: str, sandbox_id: str) -> Iterator[SandboxFiles]:
    """The files of a sandbox of the server at an address."""
    with grpc.insecure_channel(address) as channel:
        yield SandboxFiles(channel, sandbox_id)


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An archive of these entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    """An entry for `tar_of`."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, linkname, mode
    return entry


def refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, str]:
    """The code of a failed call, and the reason and the resource's name where it has them."""
    assert isinstance(error, grpc.Call)
    info, resource = ErrorInfo(), ResourceInfo()
    status = rpc_status.from_call(error)
    details: list[AnyMessage] = list(status.details) if status is not None else []
    for detail in details:
        detail.Unpack(info)
        detail.Unpack(resource)
    return error.code(), info.reason, resource.resource_name


def noise(size: int) -> Iterator[bytes]:
    """So many bytes in parts of 1 MiB, no two of which are alike, cheaply made."""
    base = os.urandom(1 << 20)
    for at in range(0, size, len(base)):
        part = at.to_bytes(8, "big") + base[8:]
        yield part[: min(len(base), size - at)]
