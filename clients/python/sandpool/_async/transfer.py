"""Transfers of files, which are resumed after a broken connection."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

from sandpool._async.resumption import pause_before_resuming
from sandpool._core import convert_sandbox_io, files
from sandpool._core.arguments import Timeout
from sandpool._core.call import Call
from sandpool._core.resumption import Resumption, incomplete_upload
from sandpool._models.file import DirectoryUpload, FileInfo
from sandpool._transport.asyncio import Transport, in_thread, notify
from sandpool._transport.local_files import Incoming, Source, Unpacking, archive
from sandpool.errors import ResourceNotFoundError, SandboxConnectionError
from sandpool.v1 import file_service_pb2

Report = Callable[[int, int], object]
"""Receives the number of transferred bytes and of all bytes."""


async def read_parts(
    transport: Transport, sandbox_id: str, path: str, offset: int, length: int | None, timeout: Timeout
) -> AsyncGenerator[FileInfo | bytes, None]:
    """Yield the description of a file and then its bytes.

    After a broken connection, continue with the same content. Raise ConflictError if the content changed.
    """
    end = None if length is None else offset + length
    etag, resumption = "", Resumption(timeout, time.monotonic)
    while True:
        left = None if end is None else end - offset
        call = files.read_file(sandbox_id, path, offset, left, etag, resumption.left())
        try:
            async with aclosing(transport.stream(call)) as responses:
                async for response in responses:
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
            await pause_before_resuming(transport, resumption, failure)


async def download(
    transport: Transport,
    sandbox_id: str,
    path: str,
    local_path: str | os.PathLike[str],
    report: Report,
    timeout: Timeout,
) -> FileInfo:
    """Receive a file."""
    incoming = await in_thread(Incoming, local_path)
    try:
        found: FileInfo | None = None
        done = 0
        async with aclosing(read_parts(transport, sandbox_id, path, 0, None, timeout)) as parts:
            async for part in parts:
                if isinstance(part, FileInfo):
                    found = part
                else:
                    await in_thread(incoming.write, part)
                    done += len(part)
                if found is not None:
                    await notify(report, done, max(done, found.size))
        if found is None:
            raise SandboxConnectionError(f"the server sent no description of {path}; repeat the download")
        await in_thread(incoming.finish, found.mode)
        return found
    finally:
        await in_thread(incoming.drop)


async def upload(
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

        async def messages(start: int) -> AsyncGenerator[file_service_pb2.WriteFileRequest, None]:
            nonlocal sent
            sent = start
            while sent < source.size:
                data = await in_thread(source.read, sent, files.PART_BYTES)
                if not data:
                    raise OSError("the file became shorter while it was read; upload it again")
                sent += len(data)
                yield files.file_part(data)
                if report is not None:
                    await notify(report, sent, source.size)

        try:
            if broken:
                received = await _received(transport, to)
                if received > offset:
                    resumption.progress()
                offset = received
            return await transport.upload(files.write_file(to, offset, resumption.left()), messages(offset))
        except SandboxConnectionError as failure:
            broken = True
            complete = sent == source.size  # The file may be written, and only the response is lost.
            if complete and not files.may_repeat(to):
                raise
            await pause_before_resuming(transport, resumption, failure)


async def _received(transport: Transport, to: file_service_pb2.WriteFileTarget) -> int:
    """Return how many bytes of an upload the sandbox received: 0 if it received none, or finished the upload."""
    try:
        return await transport.call(files.get_upload(to.sandbox_id, to.upload_id))
    except ResourceNotFoundError as failure:
        if failure.resource_type != "upload":
            raise
        return 0


async def upload_directory(
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
            return await _send_directory(transport, local_path, call)
        except SandboxConnectionError as failure:
            pause = resumption.pause(transport.retry, failure)
            if pause is None:
                raise incomplete_upload(path, failure) from failure
            await transport.pause(pause)


async def _send_directory(
    transport: Transport,
    local_path: str | os.PathLike[str],
    call: Call[file_service_pb2.UploadDirectoryResponse, DirectoryUpload],
) -> DirectoryUpload:
    parts = archive(local_path)

    async def messages() -> AsyncGenerator[file_service_pb2.UploadDirectoryRequest, None]:
        while part := await in_thread(_next_part, parts):
            yield files.directory_part(part)

    return await transport.upload(call, messages())


def _next_part(parts: Iterator[bytes]) -> bytes:
    return next(parts, b"")


async def download_directory(
    transport: Transport, sandbox_id: str, path: str, local_path: str | os.PathLike[str], timeout: Timeout
) -> int:
    """Receive a directory and extract it. After a broken connection, receive all of it again."""
    resumption = Resumption(timeout, time.monotonic)
    while True:
        call = files.download_directory(sandbox_id, path, resumption.left())
        unpacking = await in_thread(Unpacking)
        try:
            async with aclosing(transport.stream(call)) as parts:
                async for part in parts:
                    await in_thread(unpacking.write, part)
            return await in_thread(unpacking.unpack, local_path)
        except SandboxConnectionError as failure:
            await pause_before_resuming(transport, resumption, failure)
        finally:
            await in_thread(unpacking.close)
