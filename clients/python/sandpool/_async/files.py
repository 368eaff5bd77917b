"""The files of a sandbox."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sandpool._async import transfer
from sandpool._async.connection import Connection
from sandpool._async.resumption import resumed
from sandpool._core import files
from sandpool._core.arguments import UNSET, Timeout
from sandpool._core.call import Call
from sandpool._core.files import WriteModeValue
from sandpool._core.progress import Step
from sandpool._models.enums import FileChange, WriteMode
from sandpool._models.file import DirectoryUpload, FileEvent, FileInfo
from sandpool._transport.asyncio import OnProgress, in_thread
from sandpool._transport.local_files import BytesSource, FileSource
from sandpool._transport.progress_bar import bar
from sandpool.errors import PathNotFoundError

LocalPath = str | os.PathLike[str]


class AsyncFiles:
    """The files of a sandbox, accessed as its root user. All paths of the sandbox are absolute.

    All methods raise PathNotFoundError if the path does not exist, ResourceStateError if the operation is not possible
    for the path, and QuotaExceededError (DISK_FULL) if the disk is full. `read` and `write` hold the whole content in
    memory; the other methods work for files of any size. A transfer is resumed after a broken connection.

    `request_timeout` is the time limit of the call with its retries in seconds. The default is the one of the client,
    and None means no limit. The time limit of a transfer includes its resumptions; its default is no limit for a
    download and at least one hour for each connection of an upload.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._connection.sandbox_id}>"

    async def read(
        self, path: str, *, offset: int = 0, length: int | None = None, request_timeout: Timeout = UNSET
    ) -> bytes:
        """Return the content of a file.

        Args:
            path: The file.
            offset: The offset of the first byte to read.
            length: The maximum number of bytes to read. Default: up to the end of the file.
            request_timeout: Time limit of the transfer in seconds. Default: no limit.

        Raises:
            ValidationError: `offset` is after the end of the file.
            ConflictError: The connection broke, and the file changed before the transfer was resumed.
        """
        found = bytearray()
        parts = self.stream(path, offset=offset, length=length, request_timeout=request_timeout)
        async with aclosing(parts):
            async for part in parts:
                found += part
        return bytes(found)

    async def read_text(self, path: str, *, request_timeout: Timeout = UNSET) -> str:
        """Return the content of a file as text.

        Args:
            path: The file.
            request_timeout: Time limit of the transfer in seconds. Default: no limit.

        Raises:
            UnicodeDecodeError: The content is not UTF-8.
            ConflictError: The connection broke, and the file changed before the transfer was resumed.
        """
        return (await self.read(path, request_timeout=request_timeout)).decode()

    async def stream(
        self, path: str, *, offset: int = 0, length: int | None = None, request_timeout: Timeout = UNSET
    ) -> AsyncGenerator[bytes, None]:
        """Iterate over the content of a file in parts of at most 1 MiB, as they arrive.

        Args:
            path: The file.
            offset: The offset of the first byte to read.
            length: The maximum number of bytes to read. Default: up to the end of the file.
            request_timeout: Time limit of the transfer in seconds. Default: no limit.

        Raises:
            ValidationError: `offset` is after the end of the file.
            ConflictError: The connection broke, and the file changed before the transfer was resumed.
        """
        connection = self._connection
        parts = transfer.read_parts(connection.transport, connection.sandbox_id, path, offset, length, request_timeout)
        async with aclosing(parts):
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
        write_mode: WriteModeValue = WriteMode.REPLACE,
        request_timeout: Timeout = UNSET,
    ) -> FileInfo:
        """Write a file. The complete file appears atomically. Missing parent directories are created.

        Args:
            path: The file.
            content: The content. Text is encoded as UTF-8.
            mode: The permission bits. Default: those of the replaced file, otherwise 0644.
            owner: The owner, for example `nobody` or `1000:1000`. Default: that of the replaced file, otherwise the
                image's user.
            write_mode: What to do if the file exists: "replace" (default), "create" (fail) or "append".
            request_timeout: Time limit of the call in seconds. Default: the client's, at least 60, or one hour for
                content of more than 2 MiB.

        Raises:
            ResourceAlreadyExistsError: With "create": the path exists.
        """
        data = content.encode() if isinstance(content, str) else bytes(content)
        connection = self._connection
        to = files.target(connection.sandbox_id, path, mode=mode, owner=owner, write_mode=write_mode)
        if len(data) <= files.PUT_BYTES:
            return await connection.transport.call(files.put_file(to, data, request_timeout))
        return await transfer.upload(connection.transport, to, BytesSource(data), None, request_timeout)

    async def upload(
        self,
        local_path: LocalPath,
        path: str,
        *,
        mode: int | None = None,
        owner: str | None = None,
        write_mode: WriteModeValue = WriteMode.REPLACE,
        on_progress: OnProgress | None = None,
        progress: bool = False,
        request_timeout: Timeout = UNSET,
    ) -> FileInfo:
        """Copy a local file into the sandbox. The complete file appears atomically.

        Args:
            local_path: The local file.
            path: The path in the sandbox.
            mode: The permission bits. Default: as `write`.
            owner: The owner. Default: as `write`.
            write_mode: What to do if the file exists: "replace" (default), "create" (fail) or "append".
            on_progress: Receives the number of sent bytes and of all bytes.
            progress: Whether to show a progress bar. It requires tqdm, which `sandpool[progress]` installs.
            request_timeout: Time limit of the transfer in seconds. Default: one hour for each connection.

        Raises:
            ModuleNotFoundError: With `progress`: tqdm is not installed.
            ResourceAlreadyExistsError: With "create": the path exists.
        """
        source = await in_thread(FileSource, local_path)
        try:
            connection = self._connection
            to = files.target(connection.sandbox_id, path, mode=mode, owner=owner, write_mode=write_mode)
            with bar(progress) as show:

                def report(done: int, total: int) -> object:
                    show(path, Step(done, total))
                    return on_progress(done, total) if on_progress is not None else None

                return await transfer.upload(connection.transport, to, source, report, request_timeout)
        finally:
            source.close()

    async def download(
        self,
        path: str,
        local_path: LocalPath,
        *,
        on_progress: OnProgress | None = None,
        progress: bool = False,
        request_timeout: Timeout = UNSET,
    ) -> FileInfo:
        """Copy a file of the sandbox to a local path. The complete file appears atomically.

        Args:
            path: The file in the sandbox.
            local_path: The local path.
            on_progress: Receives the number of received bytes and of all bytes.
            progress: Whether to show a progress bar. It requires tqdm, which `sandpool[progress]` installs.
            request_timeout: Time limit of the transfer in seconds. Default: no limit.

        Raises:
            ModuleNotFoundError: With `progress`: tqdm is not installed.
            ConflictError: The connection broke, and the file changed before the transfer was resumed.
        """
        connection = self._connection
        with bar(progress) as show:

            def report(done: int, total: int) -> object:
                show(path, Step(done, total))
                return on_progress(done, total) if on_progress is not None else None

            return await transfer.download(
                connection.transport, connection.sandbox_id, path, local_path, report, request_timeout
            )

    async def stat(self, path: str, *, follow_symlinks: bool = False, request_timeout: Timeout = UNSET) -> FileInfo:
        """Return the description of a path.

        Args:
            path: The path.
            follow_symlinks: Whether to describe the target of a symbolic link instead of the link.
            request_timeout: Time limit of the call in seconds.
        """
        connection = self._connection
        return await connection.transport.call(
            files.stat_file(connection.sandbox_id, path, follow_symlinks, request_timeout)
        )

    async def exists(self, path: str, *, request_timeout: Timeout = UNSET) -> bool:
        """Return whether a path exists. A symbolic link exists even if its target does not."""
        try:
            await self.stat(path, request_timeout=request_timeout)
        except PathNotFoundError:
            return False
        return True

    def list(
        self, path: str, *, depth: int = 1, page_size: int | None = None, request_timeout: Timeout = UNSET
    ) -> AsyncGenerator[FileInfo, None]:
        """Iterate over the contents of a directory, by name. Pages are read as they are needed.

        Args:
            path: The directory.
            depth: The number of levels to list, 1 to 64. 1: without the contents of subdirectories.
            page_size: The number of entries per page. Default: 100.
            request_timeout: Time limit of the call for each page in seconds.
        """
        connection = self._connection
        return connection.transport.pages(
            lambda token: files.list_directory(connection.sandbox_id, path, depth, page_size, token, request_timeout)
        )

    def glob(
        self, pattern: str, *, page_size: int | None = None, request_timeout: Timeout = UNSET
    ) -> AsyncGenerator[FileInfo, None]:
        """Iterate over the paths that match a pattern, by path. Pages are read as they are needed.

        Args:
            pattern: An absolute pattern, for example `/srv/**/*.py`.
            page_size: The number of paths per page. Default: 100.
            request_timeout: Time limit of the call for each page in seconds.
        """
        connection = self._connection
        return connection.transport.pages(
            lambda token: files.glob_files(connection.sandbox_id, pattern, page_size, token, request_timeout)
        )

    async def mkdir(
        self,
        path: str,
        *,
        mode: int | None = None,
        owner: str | None = None,
        request_timeout: Timeout = UNSET,
    ) -> FileInfo:
        """Create a directory and its missing parents. An existing directory is returned unchanged.

        Args:
            path: The directory.
            mode: The permission bits of created directories. Default: 0755.
            owner: The owner of created directories. Default: the image's user.
            request_timeout: Time limit of the call in seconds.
        """
        connection = self._connection
        return await connection.transport.call(
            files.make_directory(connection.sandbox_id, path, mode, owner, request_timeout)
        )

    async def move(
        self, source: str, destination: str, *, overwrite: bool = False, request_timeout: Timeout = UNSET
    ) -> FileInfo:
        """Move a file or a directory. The call is retried only with `overwrite`.

        Args:
            source: The existing path.
            destination: The new path. Missing parents are created.
            overwrite: Whether to replace an existing file. A directory is never replaced.
            request_timeout: Time limit of the call in seconds. Default: the client's, at least one hour.

        Returns:
            The description of the destination.

        Raises:
            ResourceAlreadyExistsError: The destination exists and is not replaced.
        """
        connection = self._connection
        return await connection.transport.call(
            files.move_file(connection.sandbox_id, source, destination, overwrite, request_timeout)
        )

    async def copy(
        self, source: str, destination: str, *, overwrite: bool = False, request_timeout: Timeout = UNSET
    ) -> FileInfo:
        """Copy a file, or a directory with all its contents. The call is retried only with `overwrite`.

        Args:
            source: The existing path.
            destination: The path of the copy. Missing parents are created.
            overwrite: Whether to replace an existing file. A directory is never replaced.
            request_timeout: Time limit of the call in seconds. Default: the client's, at least one hour.

        Returns:
            The description of the copy.

        Raises:
            ResourceAlreadyExistsError: The destination exists and is not replaced.
        """
        connection = self._connection
        return await connection.transport.call(
            files.copy_file(connection.sandbox_id, source, destination, overwrite, request_timeout)
        )

    async def remove(
        self,
        path: str,
        *,
        recursive: bool = False,
        missing_ok: bool = False,
        request_timeout: Timeout = UNSET,
    ) -> None:
        """Remove a file or a directory. Symbolic links are not followed. The call is retried only with `missing_ok`.

        Args:
            path: The path.
            recursive: Whether to remove a directory with all its contents.
            missing_ok: Whether to succeed if the path does not exist.
            request_timeout: Time limit of the call in seconds. Default: the client's, with `recursive` at least one
                hour.

        Raises:
            ResourceStateError: Without `recursive`: the directory is not empty (DIRECTORY_NOT_EMPTY).
        """
        connection = self._connection
        await connection.transport.call(
            files.remove_file(connection.sandbox_id, path, recursive, missing_ok, request_timeout)
        )

    async def watch(
        self, path: str, *, recursive: bool = False, timeout: float | None = None
    ) -> AsyncGenerator[FileEvent, None]:
        """Watch a directory or a file. This returns an iterator over the changes when the watch has started.

        After a broken connection, the iterator yields `FileChange.OVERFLOW`, because changes may be missing. List the
        directory again then.

        Args:
            path: The directory or the file.
            recursive: Whether to watch subdirectories too.
            timeout: Time limit of the watch in seconds. It then raises ResourceTimeoutError. Default: no limit.
        """
        connection = self._connection

        def call(left: Timeout) -> Call[Any, FileEvent | None]:
            return files.watch_files(connection.sandbox_id, path, recursive, left)

        events = resumed(connection.transport, call, timeout, lambda: FileEvent(FileChange.OVERFLOW, path))
        await anext(events)  # The first response confirms that the watch has started.
        return _changes(events)

    async def upload_directory(
        self,
        local_path: LocalPath,
        path: str,
        *,
        owner: str | None = None,
        request_timeout: Timeout = UNSET,
    ) -> DirectoryUpload:
        """Copy the contents of a local directory into a directory of the sandbox, which is created if necessary.

        Modes and times are kept, and symbolic links stay links. After a broken connection, all contents are sent again.

        Args:
            local_path: The local directory.
            path: The directory in the sandbox.
            owner: The owner of all written entries. Default: the numeric owners of the local files.
            request_timeout: Time limit of the transfer in seconds. Default: one hour for each connection.

        Raises:
            SandboxConnectionError: The connection broke repeatedly (UPLOAD_INCOMPLETE). Entries that were written
                remain.
        """
        connection = self._connection
        return await transfer.upload_directory(
            connection.transport, connection.sandbox_id, local_path, path, owner, request_timeout
        )

    async def download_directory(self, path: str, local_path: LocalPath, *, request_timeout: Timeout = UNSET) -> int:
        """Copy the contents of a directory of the sandbox into a local directory, which is created if necessary.

        The contents are extracted when all of them have arrived. After a broken connection, all contents are read
        again.

        Args:
            path: The directory in the sandbox.
            local_path: The local directory.
            request_timeout: Time limit of the transfer in seconds. Default: no limit.

        Returns:
            The number of extracted entries.

        Raises:
            tarfile.FilterError: An entry is a device, or it would be written or would point outside of `local_path`.
        """
        connection = self._connection
        return await transfer.download_directory(
            connection.transport, connection.sandbox_id, path, local_path, request_timeout
        )


async def _changes(events: AsyncGenerator[FileEvent | None, None]) -> AsyncGenerator[FileEvent, None]:
    async with aclosing(events):
        async for event in events:
            if event is not None:
                yield event
