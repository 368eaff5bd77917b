"""The files of a sandbox."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from sandpool._async.resuming import resumed
from sandpool._async.transfer import download, read_parts, upload
from sandpool._core import files
from sandpool._core.call import Call
from sandpool._core.enums import FileChange, WriteMode
from sandpool._core.files import WriteModeLike
from sandpool._core.inside import FileEvent, FileInfo, FolderUpload
from sandpool._core.resuming import Resuming, incomplete_upload
from sandpool._core.steps import Step
from sandpool._io.aio import Transport, in_thread
from sandpool._io.local import BytesSource, FileSource, Unpacking, archive
from sandpool._io.progress import bar
from sandpool.errors import PathNotFoundError, SandboxConnectionError
from sandpool.v1 import file_service_pb2

OnProgress = Callable[[int, int], object]
"""Called with how many bytes are done, and how many there are."""
LocalPath = str | os.PathLike[str]


class AsyncFiles:
    """The files of a sandbox, as its root user. Paths are absolute.

    All raise PathNotFoundError for a path that is not there, ResourceStateError for one that cannot be used this way,
    and QuotaExceededError (DISK_FULL) on a full disk. Files may have any size: they are never held in memory but by
    `read` and `write`, which give and take them whole. A transfer that breaks goes on where it was.
    """

    def __init__(self, transport: Callable[[], Transport], sandbox_id: str) -> None:
        self._transport = transport
        self._sandbox_id = sandbox_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._sandbox_id}>"

    async def read(
        self, path: str, *, offset: int = 0, length: int | None = None, timeout: float | None = None
    ) -> bytes:
        """A file's content, or `length` bytes of it from `offset` on."""
        found = bytearray()
        async with aclosing(self.stream(path, offset=offset, length=length, timeout=timeout)) as parts:
            async for part in parts:
                found += part
        return bytes(found)

    async def read_text(self, path: str, *, timeout: float | None = None) -> str:
        """A file's content as text. Raises UnicodeDecodeError where it is not UTF-8."""
        return (await self.read(path, timeout=timeout)).decode()

    async def stream(
        self, path: str, *, offset: int = 0, length: int | None = None, timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """A file's content in parts of at most 1 MiB, as they come.

        Raises:
            ResourceChangedError: The connection broke, and the file changed before it was taken up.
        """
        async with aclosing(read_parts(self._transport(), self._sandbox_id, path, offset, length, timeout)) as parts:
            async for part in parts:
                if isinstance(part, bytes):
                    yield part

    async def write(
        self,
        path: str,
        content: str | bytes,
        *,
        mode: int | None = None,
        owner: str | None = None,
        write_mode: WriteModeLike = WriteMode.REPLACE,
        timeout: float | None = None,
    ) -> FileInfo:
        """Write a file; it appears whole and at once, and parents that are missing are made.

        Args:
            path: The file's path.
            content: Its content; text is written as UTF-8.
            mode: Its permission bits; those of the file that is replaced by default, else 0644.
            owner: Its owner, such as `nobody` or `1000:1000`; that of the file that is replaced by default, else the
                image's user.
            write_mode: What to do with a file that is there: "replace" (the default), "create" refuses it, "append"
                writes at its end.
            timeout: Seconds for this call; the client's by default, at least 60.

        Raises:
            ResourceAlreadyExistsError: With "create": there is something at the path.
        """
        data = content.encode() if isinstance(content, str) else bytes(content)
        to = files.target(self._sandbox_id, path, mode=mode, owner=owner, write_mode=write_mode)
        if len(data) <= files.PUT_BYTES:
            return await self._transport().call(files.put_file(to, data, timeout))
        return await upload(self._transport(), to, BytesSource(data), None, timeout)

    async def upload(
        self,
        local_path: LocalPath,
        path: str,
        *,
        mode: int | None = None,
        owner: str | None = None,
        on_progress: OnProgress | None = None,
        progress: bool = False,
        timeout: float | None = None,
    ) -> FileInfo:
        """Copy a file of this machine into the sandbox.

        Args:
            local_path: The file on this machine.
            path: Where it is to be; an existing file is replaced when all has arrived.
            mode: Its permission bits; by default as `write`.
            owner: Its owner; by default as `write`.
            on_progress: Called with how many bytes are sent and how many there are.
            progress: Show a bar, in a terminal on the standard error, or in a notebook. It is drawn by tqdm, which
                `sandpool[progress]` installs.
            timeout: Seconds for each connection; an hour by default.

        Raises:
            ModuleNotFoundError: With `progress`: tqdm is not installed.
        """
        source = await in_thread(FileSource, local_path)
        try:
            to = files.target(self._sandbox_id, path, mode=mode, owner=owner)
            with bar(progress) as show:

                def tell(done: int, total: int) -> object:
                    show(path, Step(done, total))
                    return on_progress(done, total) if on_progress is not None else None

                return await upload(self._transport(), to, source, tell, timeout)
        finally:
            source.close()

    async def download(
        self,
        path: str,
        local_path: LocalPath,
        *,
        on_progress: OnProgress | None = None,
        progress: bool = False,
        timeout: float | None = None,
    ) -> FileInfo:
        """Copy a file of the sandbox to this machine, where it appears when all has arrived.

        Arguments as `upload`. Raises ResourceChangedError where the file changed while a broken transfer was taken up.
        """
        with bar(progress) as show:

            def tell(done: int, total: int) -> object:
                show(path, Step(done, total))
                return on_progress(done, total) if on_progress is not None else None

            return await download(self._transport(), self._sandbox_id, path, local_path, tell, timeout)

    async def stat(self, path: str, *, follow: bool = False, timeout: float | None = None) -> FileInfo:
        """What a path names; with `follow` what a symbolic link leads to."""
        return await self._transport().call(files.stat_file(self._sandbox_id, path, follow, timeout))

    async def exists(self, path: str, *, timeout: float | None = None) -> bool:
        """Whether there is anything at a path."""
        try:
            await self.stat(path, timeout=timeout)
        except PathNotFoundError:
            return False
        return True

    async def list(
        self, path: str, *, depth: int = 1, page_size: int = 0, timeout: float | None = None
    ) -> builtins.list[FileInfo]:
        """What is in a folder, by name; with a `depth` of more than 1, up to 64, also what is in its folders."""
        return await self._transport().pages(
            lambda token: files.list_directory(self._sandbox_id, path, depth, page_size, token, timeout)
        )

    async def glob(self, pattern: str, *, page_size: int = 0, timeout: float | None = None) -> builtins.list[FileInfo]:
        """The paths that match an absolute pattern such as `/srv/**/*.py`, by path."""
        return await self._transport().pages(
            lambda token: files.glob_files(self._sandbox_id, pattern, page_size, token, timeout)
        )

    async def mkdir(
        self, path: str, *, mode: int | None = None, owner: str | None = None, timeout: float | None = None
    ) -> FileInfo:
        """Make a folder and its parents; one that is there already is answered as it is."""
        return await self._transport().call(files.make_directory(self._sandbox_id, path, mode, owner, timeout))

    async def move(
        self, source: str, destination: str, *, overwrite: bool = False, timeout: float | None = None
    ) -> FileInfo:
        """Move a file or folder. Raises ResourceAlreadyExistsError where the destination is there; see `overwrite`."""
        return await self._transport().call(files.move_file(self._sandbox_id, source, destination, overwrite, timeout))

    async def copy(
        self, source: str, destination: str, *, overwrite: bool = False, timeout: float | None = None
    ) -> FileInfo:
        """Copy a file, or a folder with all that is in it. Errors as `move`."""
        return await self._transport().call(files.copy_file(self._sandbox_id, source, destination, overwrite, timeout))

    async def remove(
        self, path: str, *, recursive: bool = False, missing_ok: bool = False, timeout: float | None = None
    ) -> None:
        """Remove a file, an empty folder, or with `recursive` a folder with all that is in it. Follows no link."""
        await self._transport().call(files.remove_file(self._sandbox_id, path, recursive, missing_ok, timeout))

    async def watch(
        self, path: str, *, recursive: bool = False, timeout: float | None = None
    ) -> AsyncGenerator[FileEvent, None]:
        """The changes in a folder or of a file, until the iterator is closed; answers when the watch has begun.

        With a `timeout` in seconds it ends with ResourceTimeoutError. After a connection that broke it goes on with
        `FileChange.OVERFLOW`: something may have happened meanwhile, so look at the folder again.
        """

        def watching(left: float | None) -> Call[Any, FileEvent | None]:
            return files.watch_files(self._sandbox_id, path, recursive, left)

        events = resumed(self._transport(), watching, timeout, lambda: FileEvent(FileChange.OVERFLOW, path))
        await anext(events)  # says that it has begun
        return _changes(events)

    async def upload_folder(
        self, local_path: LocalPath, path: str, *, owner: str | None = None, timeout: float | None = None
    ) -> FolderUpload:
        """Copy what is in a folder of this machine into a folder of the sandbox, which is made where it is missing.

        Modes and times are kept, symbolic links stay links. All that is written belongs to `owner`; by default to whom
        the numbers of this machine name.

        Where the connection breaks all of it is sent anew, which replaces what was written before. `timeout` is for one
        of these times.

        Raises:
            SandboxConnectionError: UPLOAD_INCOMPLETE: it broke too often. What was written stays.
        """
        transport, resuming = self._transport(), Resuming(None, time.monotonic)
        while True:
            try:
                call = files.upload_folder(self._sandbox_id, path, owner, timeout)
                return await self._upload_once(transport, local_path, call)
            except SandboxConnectionError as failure:
                pause = resuming.pause(transport.retry, failure)
                if pause is None:
                    raise incomplete_upload(path, failure) from failure
                await transport.pause(pause)

    async def _upload_once(
        self, transport: Transport, local_path: LocalPath, call: Call[Any, FolderUpload]
    ) -> FolderUpload:
        parts = archive(local_path)

        async def messages() -> AsyncGenerator[file_service_pb2.UploadFolderRequest, None]:
            while part := await in_thread(_next, parts):
                yield files.folder_part(part)

        return await transport.upload(call, messages())

    async def download_folder(self, path: str, local_path: LocalPath, *, timeout: float | None = None) -> int:
        """Copy what is in a folder of the sandbox into one of this machine; gives the number of entries.

        It is unpacked when all of it has arrived; where the connection breaks before, it is read anew. Nothing of it
        can lie or lead outside of that folder: such an entry raises `tarfile.FilterError`.
        """
        transport, resuming = self._transport(), Resuming(timeout, time.monotonic)
        while True:
            try:
                return await self._download_once(transport, path, local_path, resuming.left())
            except SandboxConnectionError as failure:
                pause = resuming.pause(transport.retry, failure)
                if pause is None:
                    raise
                await transport.pause(pause)

    async def _download_once(
        self, transport: Transport, path: str, local_path: LocalPath, timeout: float | None
    ) -> int:
        unpacking = await in_thread(Unpacking)
        try:
            call = files.download_folder(self._sandbox_id, path, timeout)
            async with aclosing(transport.stream(call)) as parts:
                async for part in parts:
                    await in_thread(unpacking.write, part)
            return await in_thread(unpacking.unpack, local_path)
        finally:
            await in_thread(unpacking.close)


def _next(parts: Iterator[bytes]) -> bytes:
    return next(parts, b"")


async def _changes(events: AsyncGenerator[FileEvent | None, None]) -> AsyncGenerator[FileEvent, None]:
    async with aclosing(events):
        async for event in events:
            if event is not None:
                yield event
