"""Files on their way, which go on after the connection has broken."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from sandpool._core import convert_inside, files
from sandpool._core.inside import FileInfo
from sandpool._core.resuming import Resuming
from sandpool._io.aio import Transport, in_thread, notify
from sandpool._io.local import Incoming, Source
from sandpool.errors import ResourceNotFoundError, SandboxConnectionError
from sandpool.v1 import file_service_pb2

Tell = Callable[[int, int], object]


async def read_parts(
    transport: Transport, sandbox_id: str, path: str, offset: int, length: int | None, timeout: float | None
) -> AsyncGenerator[FileInfo | bytes, None]:
    """What a file is, and then its bytes. After a broken connection it goes on in the same content, or not at all."""
    end = None if length is None else offset + length
    etag, resuming = "", Resuming(None, time.monotonic)
    while True:
        left = None if end is None else end - offset
        call = files.read_file(sandbox_id, path, offset, left, etag, timeout)
        try:
            async with aclosing(transport.stream(call)) as answers:
                async for answer in answers:
                    resuming.arrived()
                    if answer.HasField("file"):
                        if not etag:
                            yield convert_inside.file_info(answer.file)
                        etag = answer.file.etag
                    else:
                        offset += len(answer.data)
                        yield answer.data
            return
        except SandboxConnectionError as failure:
            await _pause(transport, resuming, failure)


async def download(
    transport: Transport,
    sandbox_id: str,
    path: str,
    local_path: str | os.PathLike[str],
    tell: Tell,
    timeout: float | None,
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
                    await notify(tell, done, max(done, found.size))
        if found is None:
            raise SandboxConnectionError(f"the server did not say what {path} is")
        await in_thread(incoming.finish, found.mode)
        return found
    finally:
        await in_thread(incoming.drop)


async def upload(
    transport: Transport,
    to: file_service_pb2.WriteFileTarget,
    source: Source,
    tell: Tell | None,
    timeout: float | None,
) -> FileInfo:
    """Send a file. After a broken connection it goes on at the first byte that has not arrived."""
    to.upload_id = files.fresh_upload_id()
    to.size = source.size
    offset, sent, broken = 0, 0, False
    resuming = Resuming(None, time.monotonic)
    while True:

        async def messages(begin: int) -> AsyncGenerator[file_service_pb2.WriteFileRequest, None]:
            nonlocal sent
            sent = begin
            while sent < source.size:
                data = await in_thread(source.read, sent, files.PART_BYTES)
                if not data:
                    raise OSError("the file became shorter while it was read")
                sent += len(data)
                yield files.file_part(data)
                if tell is not None:
                    await notify(tell, sent, source.size)

        try:
            if broken:
                arrived = await _arrived(transport, to)
                if arrived > offset:
                    resuming.arrived()
                offset = arrived
            return await transport.upload(files.write_file(to, offset, timeout), messages(offset))
        except SandboxConnectionError as failure:
            broken = True
            whole = sent == source.size  # it may have been finished, and the answer lost
            if whole and not files.may_repeat(to):
                raise
            await _pause(transport, resuming, failure)


async def _arrived(transport: Transport, to: file_service_pb2.WriteFileTarget) -> int:
    """How much of an upload is there; nothing where none of it has arrived, or it was finished."""
    try:
        return await transport.call(files.get_upload(to.sandbox_id, to.upload_id))
    except ResourceNotFoundError as failure:
        if failure.resource_type != "upload":
            raise
        return 0


async def _pause(transport: Transport, resuming: Resuming, failure: SandboxConnectionError) -> None:
    pause = resuming.pause(transport.retry, failure)
    if pause is None:
        raise failure
    await transport.pause(pause)
