"""Calls about files in a sandbox."""

from __future__ import annotations

import uuid
from typing import Final, Literal, TypeAlias

from sandpool._core import convert_inside as convert
from sandpool._core import methods
from sandpool._core.arguments import given
from sandpool._core.call import Call, Page, Repeat
from sandpool._core.enums import WriteMode
from sandpool._core.inside import FileEvent, FileInfo, FolderUpload
from sandpool.v1 import file_service_pb2 as pb

PUT_BYTES: Final = 2 * 1024 * 1024
"""Content up to this size is written in one call of one message."""
PART_BYTES: Final = 1024 * 1024
"""How much one message of a stream carries."""
TRANSFER_TIMEOUT: Final = 3600.0
"""How long one call that carries a file or folder may take where the caller says nothing, in seconds."""

WriteModeLike: TypeAlias = WriteMode | Literal["replace", "create", "append"]


def fresh_upload_id() -> str:
    """A name for one upload, so that it can be taken up where it broke."""
    return f"u-{uuid.uuid4().hex}"


def target(
    sandbox_id: str,
    path: str,
    *,
    mode: int | None = None,
    owner: str | None = None,
    upload_id: str = "",
    size: int | None = None,
    write_mode: WriteModeLike = WriteMode.REPLACE,
) -> pb.WriteFileTarget:
    """Which file to write and how. Raises ValueError for a write mode that there is not."""
    return pb.WriteFileTarget(
        sandbox_id=sandbox_id,
        path=path,
        upload_id=upload_id,
        write_mode=pb.WriteMode.Value(f"WRITE_MODE_{WriteMode(write_mode).upper()}"),
        **given(mode=mode, owner=owner, size=size),
    )


def may_repeat(to: pb.WriteFileTarget) -> bool:
    """Whether writing the same once more leaves the same file: only where it replaces what is there."""
    return to.write_mode == pb.WRITE_MODE_REPLACE


def read_file(
    sandbox_id: str, path: str, offset: int, length: int | None, etag: str, timeout: float | None
) -> Call[pb.ReadFileResponse, pb.ReadFileResponse]:
    """Read a file from an offset on."""
    request = pb.ReadFileRequest(sandbox_id=sandbox_id, path=path, offset=offset, etag=etag, **given(length=length))
    return Call(methods.READ_FILE, request, lambda answer: answer, timeout=timeout)


def put_file(to: pb.WriteFileTarget, data: bytes, timeout: float | None) -> Call[pb.PutFileResponse, FileInfo]:
    """Write a small file."""
    request = pb.PutFileRequest(target=to, data=data)
    return Call(
        methods.PUT_FILE,
        request,
        lambda answer: convert.file_info(answer.file),
        repeat=Repeat.SAFE if may_repeat(to) else Repeat.NEVER,
        timeout=timeout,
        least_timeout=60.0,
    )


def write_file(to: pb.WriteFileTarget, offset: int, timeout: float | None) -> Call[pb.WriteFileResponse, FileInfo]:
    """Write a file from an offset on; its bytes follow in further messages."""
    first = pb.WriteFileRequest(target=to)
    first.target.offset = offset
    return Call(
        methods.WRITE_FILE,
        first,
        lambda answer: convert.file_info(answer.file),
        repeat=Repeat.NEVER,
        timeout=timeout,
        least_timeout=TRANSFER_TIMEOUT,
    )


def file_part(data: bytes) -> pb.WriteFileRequest:
    """A message with the next bytes of a file."""
    return pb.WriteFileRequest(data=data)


def get_upload(sandbox_id: str, upload_id: str) -> Call[pb.GetUploadResponse, int]:
    """How much of an upload has arrived."""
    request = pb.GetUploadRequest(sandbox_id=sandbox_id, upload_id=upload_id)
    return Call(methods.GET_UPLOAD, request, lambda answer: answer.received_bytes)


def stat_file(sandbox_id: str, path: str, follow: bool, timeout: float | None) -> Call[pb.StatFileResponse, FileInfo]:
    """What a path names."""
    request = pb.StatFileRequest(sandbox_id=sandbox_id, path=path, follow=follow)
    return Call(methods.STAT_FILE, request, lambda answer: convert.file_info(answer.file), timeout=timeout)


def list_directory(
    sandbox_id: str, path: str, depth: int, page_size: int, token: str, timeout: float | None
) -> Call[pb.ListDirectoryResponse, Page[FileInfo]]:
    """One page of what is in a folder."""
    request = pb.ListDirectoryRequest(
        sandbox_id=sandbox_id, path=path, depth=depth, page_size=page_size, page_token=token
    )
    return Call(
        methods.LIST_DIRECTORY,
        request,
        lambda answer: Page([convert.file_info(item) for item in answer.files], answer.next_page_token),
        timeout=timeout,
    )


def glob_files(
    sandbox_id: str, pattern: str, page_size: int, token: str, timeout: float | None
) -> Call[pb.GlobFilesResponse, Page[FileInfo]]:
    """One page of the paths that match."""
    request = pb.GlobFilesRequest(sandbox_id=sandbox_id, pattern=pattern, page_size=page_size, page_token=token)
    return Call(
        methods.GLOB_FILES,
        request,
        lambda answer: Page([convert.file_info(item) for item in answer.files], answer.next_page_token),
        timeout=timeout,
    )


def make_directory(
    sandbox_id: str, path: str, mode: int | None, owner: str | None, timeout: float | None
) -> Call[pb.MakeDirectoryResponse, FileInfo]:
    """Make a folder; one that is there is answered."""
    request = pb.MakeDirectoryRequest(sandbox_id=sandbox_id, path=path, **given(mode=mode, owner=owner))
    return Call(methods.MAKE_DIRECTORY, request, lambda answer: convert.file_info(answer.file), timeout=timeout)


def move_file(
    sandbox_id: str, source: str, destination: str, overwrite: bool, timeout: float | None
) -> Call[pb.MoveFileResponse, FileInfo]:
    """Move a file or folder; sent once, for a repetition would not find it."""
    request = pb.MoveFileRequest(sandbox_id=sandbox_id, source=source, destination=destination, overwrite=overwrite)
    return Call(
        methods.MOVE_FILE,
        request,
        lambda answer: convert.file_info(answer.file),
        repeat=Repeat.NEVER,
        timeout=timeout,
        least_timeout=TRANSFER_TIMEOUT,
    )


def copy_file(
    sandbox_id: str, source: str, destination: str, overwrite: bool, timeout: float | None
) -> Call[pb.CopyFileResponse, FileInfo]:
    """Copy a file or folder; repeated only where it may overwrite."""
    request = pb.CopyFileRequest(sandbox_id=sandbox_id, source=source, destination=destination, overwrite=overwrite)
    return Call(
        methods.COPY_FILE,
        request,
        lambda answer: convert.file_info(answer.file),
        repeat=Repeat.SAFE if overwrite else Repeat.NEVER,
        timeout=timeout,
        least_timeout=TRANSFER_TIMEOUT,
    )


def remove_file(
    sandbox_id: str, path: str, recursive: bool, missing_ok: bool, timeout: float | None
) -> Call[pb.RemoveFileResponse, None]:
    """Remove a file or folder; repeated only where it may be gone already."""
    request = pb.RemoveFileRequest(sandbox_id=sandbox_id, path=path, recursive=recursive, missing_ok=missing_ok)
    return Call(
        methods.REMOVE_FILE,
        request,
        lambda _: None,
        repeat=Repeat.SAFE if missing_ok else Repeat.NEVER,
        timeout=timeout,
        least_timeout=TRANSFER_TIMEOUT if recursive else 0.0,
    )


def watch_files(
    sandbox_id: str, path: str, recursive: bool, timeout: float | None
) -> Call[pb.WatchFilesResponse, FileEvent | None]:
    """Changes of a path. The first answer says that the watch has begun."""
    request = pb.WatchFilesRequest(sandbox_id=sandbox_id, path=path, recursive=recursive)
    return Call(methods.WATCH_FILES, request, convert.file_event, timeout=timeout)


def download_folder(sandbox_id: str, path: str, timeout: float | None) -> Call[pb.DownloadFolderResponse, bytes]:
    """A folder as a tar archive."""
    request = pb.DownloadFolderRequest(sandbox_id=sandbox_id, path=path)
    return Call(methods.DOWNLOAD_FOLDER, request, lambda answer: answer.data, timeout=timeout)


def upload_folder(
    sandbox_id: str, path: str, owner: str | None, timeout: float | None
) -> Call[pb.UploadFolderResponse, FolderUpload]:
    """Write a tar archive into a folder; the archive follows in further messages."""
    to = pb.UploadFolderTarget(sandbox_id=sandbox_id, path=path, **given(owner=owner))
    return Call(
        methods.UPLOAD_FOLDER,
        pb.UploadFolderRequest(target=to),
        lambda answer: FolderUpload(answer.entries, answer.bytes_written),
        repeat=Repeat.NEVER,
        timeout=timeout,
        least_timeout=TRANSFER_TIMEOUT,
    )


def folder_part(data: bytes) -> pb.UploadFolderRequest:
    """A message with the next bytes of an archive."""
    return pb.UploadFolderRequest(data=data)
