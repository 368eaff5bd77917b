"""The handle's methods about files: the shorter names for what `files` has."""

from __future__ import annotations

from sandpool._async.base import HandleBase
from sandpool._async.files import AsyncFiles, LocalPath, OnProgress
from sandpool._core.inside import DirectoryListing, FileInfo, FolderUpload


class FileMethods(HandleBase):
    """Files of a sandbox; `files` has them all, and says what each raises."""

    @property
    def files(self) -> AsyncFiles:
        """All that can be done with the sandbox's files."""
        return AsyncFiles(lambda: self._transport, self.sandbox_id)

    async def read(self, path: str, *, timeout: float | None = None) -> bytes:
        """A file's content."""
        return await self.files.read(path, timeout=timeout)

    async def read_file(self, path: str, *, timeout: float | None = None) -> bytes:
        """The same as `read`."""
        return await self.files.read(path, timeout=timeout)

    async def write(
        self,
        path: str,
        content: str | bytes,
        *,
        mode: int | None = None,
        owner: str | None = None,
        timeout: float | None = None,
    ) -> FileInfo:
        """Write a file: see `files.write`."""
        return await self.files.write(path, content, mode=mode, owner=owner, timeout=timeout)

    async def write_file(
        self,
        path: str,
        content: str | bytes,
        *,
        mode: int | None = None,
        owner: str | None = None,
        timeout: float | None = None,
    ) -> FileInfo:
        """The same as `write`."""
        return await self.files.write(path, content, mode=mode, owner=owner, timeout=timeout)

    async def upload_file(
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
        """Copy a file of this machine into the sandbox: see `files.upload`."""
        return await self.files.upload(
            local_path, path, mode=mode, owner=owner, on_progress=on_progress, progress=progress, timeout=timeout
        )

    async def download_file(
        self,
        path: str,
        local_path: LocalPath,
        *,
        on_progress: OnProgress | None = None,
        progress: bool = False,
        timeout: float | None = None,
    ) -> FileInfo:
        """Copy a file of the sandbox to this machine: see `files.download`."""
        return await self.files.download(path, local_path, on_progress=on_progress, progress=progress, timeout=timeout)

    async def upload_folder(
        self, local_path: LocalPath, path: str, *, owner: str | None = None, timeout: float | None = None
    ) -> FolderUpload:
        """Copy a folder's content into the sandbox: see `files.upload_folder`."""
        return await self.files.upload_folder(local_path, path, owner=owner, timeout=timeout)

    async def download_folder(self, path: str, local_path: LocalPath, *, timeout: float | None = None) -> int:
        """Copy a folder's content to this machine: see `files.download_folder`."""
        return await self.files.download_folder(path, local_path, timeout=timeout)

    async def delete_file(self, path: str, *, timeout: float | None = None) -> None:
        """Remove a file or an empty folder; `files.remove` does more."""
        await self.files.remove(path, timeout=timeout)

    async def list_directory(self, path: str, *, timeout: float | None = None) -> DirectoryListing:
        """What is in a folder, by name."""
        return DirectoryListing(path, tuple(await self.files.list(path, timeout=timeout)))
