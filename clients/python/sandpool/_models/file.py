"""Files of a sandbox."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from datetime import datetime

from sandpool._models.enums import FileChange, FileType


@dataclass(frozen=True)
class FileInfo:
    """A file, a directory or another file system object of a sandbox."""

    path: str
    """The absolute path."""
    type: FileType
    """The type of the object."""
    size: int
    """The size in bytes, or 0 for objects without a size."""
    mode: int
    """The permission bits including set-user-id, set-group-id and sticky."""
    uid: int
    """The numeric user id of the owner."""
    gid: int
    """The numeric group id."""
    user: str | None
    """The name of the owner in the sandbox, or None if the user id has no name."""
    group: str | None
    """The name of the group in the sandbox, or None if the group id has no name."""
    modify_time: datetime | None
    """When the content last changed."""
    link_target: str | None
    """The target of a symbolic link as it is stored in the link, or None for other types."""
    etag: str
    """Changes whenever the content changes."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def is_dir(self) -> bool:
        """Whether the object is a directory."""
        return self.type is FileType.DIRECTORY


@dataclass(frozen=True)
class FileEvent:
    """A change of a watched path."""

    change: FileChange
    """The kind of change."""
    path: str
    """The changed path."""


@dataclass(frozen=True)
class DirectoryUpload:
    """The result of `upload_directory`."""

    entries: int
    """The number of entries that were written."""
    bytes_written: int
    """The number of bytes that were written to files."""
