# Code generated from _async/transfer.py by tools/codegen/blocking_client.py. DO NOT EDIT.
"""Transfers of files, which are resumed after a broken connection."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from sandpool._core import convert_sandbox_io, files
from sandpool._core.arguments import Timeout
from sandpool._core.call import Call
from sandpool._core.resumption import Resumption, incomplete_upload
from sandpool._models.file import DirectoryUpload, FileInfo
from sandpool._sync.resumption import pause_before_resuming
from sandpool._transport.local_files import Incoming, Source, Unpacking, archive
from sandpool._transport.threads import Transport, in_thread, notify
from sandpool.errors import ResourceNotFoundError, SandboxConnectionError
from sandpool.v1 import file_service_pb2

Report = Callable[[int, int], object]
"""Receives the number of transferred bytes and of all bytes."""


def read_parts(
    transport: Transport, sandbox_id: str, path: str, offset: int, length: int | None, timeout: Timeout
) -> Generator[FileInfo | bytes, None, None]:
    """Yield the description of a file and then its bytes.

    After a broken connection, continue with the same content. Raise ConflictError if the content changed.
    """
    end = None if length is None else offset + length
    etag, resumption = "", Resumption(timeout, time.monotonic)
    while True:
        left = None if end is None else end - offset
        call = files.read_file(sandbox_id, path, offset, left, etag, resumption.left())
        try:
            with closing(transport.stream(call)) as responses:
                for response in responses:
                    resumption.progress()
                    if response.HasField("file"):
                        if not etag:
                            yield convert_sandbox_io.file_info(response.file)
                        etag = response.file.etag
                    else:
                        offset += len(response.data)
                        yield response.data
            return
        except SandboxConnectionError as failure:
            pause_before_resuming(transport, resumption, failure)


def download(
    transport: Transport,
    sandbox_id: str,
    path: str,
    local_path: str | os.PathLike[str],
    report: Report,
    timeout: Timeout,
) -> FileInfo:
    """Receive a file."""
    incoming = in_thread(Incoming, local_path)
    try:
        found: FileInfo | None = None
        done = 0
        with closing(read_parts(transport, sandbox_id, path, 0, None, timeout)) as parts:
            for part in parts:
                if isinstance(part, FileInfo):
                    found = part
                else:
                    in_thread(incoming.write, part)
                    done += len(part)
                if found is not None:
                    notify(report, done, max(done, found.size))
        if found is None:
            raise SandboxConnectionError(f"the server sent no description of {path}; repeat the download")
        in_thread(incoming.finish, found.mode)
        return found
    finally:
        in_thread(incoming.drop)


def upload(
    transport: Transport,
    to: file_service_pb2.WriteFileTarget,
    source: Source,
    report: Report | None,
    timeout: Timeout,
) -> FileInfo:
    """Send a file. After a broken connection, continue at the first byte that the sandbox did not receive."""
    to.upload_id = files.new_upload_id()
    to.size = source.size
    offset, sent, broken = 0, 0, False
    resumption = Resumption(timeout, time.monotonic)
    while True:

        def messages(start: int) -> Generator[file_service_pb2.WriteFileRequest, None, None]:
            nonlocal sent
            sent = start
            while sent < source.size:
                data = in_thread(source.read, sent, files.PART_BYTES)
                if not data:
                    raise OSError("the file became shorter while it was read; upload it again")
                sent += len(data)
                yield files.file_part(data)
                if report is not None:
                    notify(report, sent, source.size)

        try:
            if broken:
                received = _received(transport, to)
                if received > offset:
                    resumption.progress()
                offset = received
            return transport.upload(files.write_file(to, offset, resumption.left()), messages(offset))
        except SandboxConnectionError as failure:
            broken = True
            complete = sent == source.size  # The file may be written, and only the response is lost.
            if complete and not files.may_repeat(to):
                raise
            pause_before_resuming(transport, resumption, failure)


def _received(transport: Transport, to: file_service_pb2.WriteFileTarget) -> int:
    """Return how many bytes of an upload the sandbox received: 0 if it received none, or finished the upload."""
    try:
        return transport.call(files.get_upload(to.sandbox_id, to.upload_id))
    except ResourceNotFoundError as failure:
        if failure.resource_type != "upload":
            raise
        return 0


def upload_directory(
    transport: Transport,
    sandbox_id: str,
    local_path: str | os.PathLike[str],
    path: str,
    owner: str | None,
    timeout: Timeout,
) -> DirectoryUpload:
    """Send a directory. After a broken connection, send all of it again."""
    resumption = Resumption(timeout, time.monotonic)
    while True:
        try:
            call = files.upload_directory(sandbox_id, path, owner, resumption.left())
            return _send_directory(transport, local_path, call)
        except SandboxConnectionError as failure:
            pause = resumption.pause(transport.retry, failure)
            if pause is None:
                raise incomplete_upload(path, failure) from failure
            transport.pause(pause)


def _send_directory(
    transport: Transport,
    local_path: str | os.PathLike[str],
    call: Call[file_service_pb2.UploadDirectoryResponse, DirectoryUpload],
) -> DirectoryUpload:
    parts = archive(local_path)

    def messages() -> Generator[file_service_pb2.UploadDirectoryRequest, None, None]:
        while part := in_thread(_next_part, parts):
            yield files.directory_part(part)

    return transport.upload(call, messages())


def _next_part(parts: Iterator[bytes]) -> bytes:
    return next(parts, b"")


def download_directory(
    transport: Transport, sandbox_id: str, path: str, local_path: str | os.PathLike[str], timeout: Timeout
) -> int:
    """Receive a directory and extract it. After a broken connection, receive all of it again."""
    resumption = Resumption(timeout, time.monotonic)
    while True:
        call = files.download_directory(sandbox_id, path, resumption.left())
        unpacking = in_thread(Unpacking)
        try:
            with closing(transport.stream(call)) as parts:
                for part in parts:
                    in_thread(unpacking.write, part)
            return in_thread(unpacking.unpack, local_path)
        except SandboxConnectionError as failure:
            pause_before_resuming(transport, resumption, failure)
        finally:
            in_thread(unpacking.close)
