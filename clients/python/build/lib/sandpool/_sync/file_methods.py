# Made from _async/file_methods.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The handle's methods about files: the shorter names for what `files` has."""

from __future__ import annotations

from sandpool._core.inside import DirectoryListing, FileInfo, FolderUpload
from sandpool._sync.base import HandleBase
from sandpool._sync.files import Files, LocalPath, OnProgress


class FileMethods(HandleBase):
    """Files of a sandbox; `files` has them all, and says what each raises."""

    @property
    def files(self) -> Files:
        """All that can be done with the sandbox's files."""
        return Files(lambda: self._transport, self.sandbox_id)

    def read(self, path: str, *, timeout: float | None = None) -> bytes:
        """A file's content."""
        return self.files.read(path, timeout=timeout)

    def read_file(self, path: str, *, timeout: float | None = None) -> bytes:
        """The same as `read`."""
        return self.files.read(path, timeout=timeout)

    def write(
        self,
        path: str,
        content: str | bytes,
        *,
        mode: int | None = None,
        owner: str | None = None,
        timeout: float | None = None,
    ) -> FileInfo:
        """Write a file: see `files.write`."""
        return self.files.write(path, content, mode=mode, owner=owner, timeout=timeout)

    def write_file(
        self,
        path: str,
        content: str | bytes,
        *,
        mode: int | None = None,
        owner: str | None = None,
        timeout: float | None = None,
    ) -> FileInfo:
        """The same as `write`."""
        return self.files.write(path, content, mode=mode, owner=owner, timeout=timeout)

    def upload_file(
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
        return self.files.upload(
            local_path, path, mode=mode, owner=owner, on_progress=on_progress, progress=progress, timeout=timeout
        )

    def download_file(
        self,
        path: str,
        local_path: LocalPath,
        *,
        on_progress: OnProgress | None = None,
        progress: bool = False,
        timeout: float | None = None,
    ) -> FileInfo:
        """Copy a file of the sandbox to this machine: see `files.download`."""
        return self.files.download(path, local_path, on_progress=on_progress, progress=progress, timeout=timeout)

    def upload_folder(
        self, local_path: LocalPath, path: str, *, owner: str | None = None, timeout: float | None = None
    ) -> FolderUpload:
        """Copy a folder's content into the sandbox: see `files.upload_folder`."""
        return self.files.upload_folder(local_path, path, owner=owner, timeout=timeout)

    def download_folder(self, path: str, local_path: LocalPath, *, timeout: float | None = None) -> int:
        """Copy a folder's content to this machine: see `files.download_folder`."""
        return self.files.download_folder(path, local_path, timeout=timeout)

    def delete_file(self, path: str, *, timeout: float | None = None) -> None:
        """Remove a file or an empty folder; `files.remove` does more."""
        self.files.remove(path, timeout=timeout)

    def list_directory(self, path: str, *, timeout: float | None = None) -> DirectoryListing:
        """What is in a folder, by name."""
        return DirectoryListing(path, tuple(self.files.list(path, timeout=timeout)))
