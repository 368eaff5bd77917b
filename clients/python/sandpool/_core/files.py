"""Calls about the files of a sandbox."""

from __future__ import annotations

import uuid
from typing import Any, Final, Literal, TypeAlias

from sandpool._core import convert_sandbox_io as convert
from sandpool._core import methods
from sandpool._core.arguments import Timeout, choice, present
from sandpool._core.call import Call, Page, Repeat
from sandpool._models.enums import WriteMode
from sandpool._models.file import DirectoryUpload, FileEvent, FileInfo
from sandpool.errors import PathNotFoundError, SandpoolError
from sandpool.v1 import file_service_pb2 as pb

PUT_BYTES: Final = 2 * 1024 * 1024
"""Content up to this size is written by a call with one request."""
PART_BYTES: Final = 1024 * 1024
"""The size of the data in one message of a stream."""
PUT_TIMEOUT: Final = 60.0
"""The least default timeout of a call that writes a file with one request, in seconds."""
TRANSFER_TIMEOUT: Final = 3600.0
"""The least default timeout of a call that transfers a file or changes a directory tree, in seconds."""

WriteModeValue: TypeAlias = WriteMode | Literal["replace", "create", "append"]


def new_upload_id() -> str:
    """Return a unique identifier of an upload, so that it can be resumed."""
    return f"u-{uuid.uuid4().hex}"


def target(
    sandbox_id: str,
    path: str,
    *,
    mode: int | None = None,
    owner: str | None = None,
    write_mode: WriteModeValue = WriteMode.REPLACE,
) -> pb.WriteFileTarget:
    """Return the file to write. Raise ValueError for a write mode that does not exist."""
    member = choice("write_mode", WriteMode, write_mode)
    return pb.WriteFileTarget(
        sandbox_id=sandbox_id,
        path=path,
        write_mode=pb.WriteMode.Value(f"WRITE_MODE_{member.upper()}"),
        **present(mode=mode, owner=owner),
    )


def may_repeat(to: pb.WriteFileTarget) -> bool:
    """Return whether a repeated write has the same result. This is the case only if it replaces the file."""
    return to.write_mode == pb.WRITE_MODE_REPLACE


def read_file(
    sandbox_id: str, path: str, offset: int, length: int | None, etag: str, timeout: Timeout
) -> Call[pb.ReadFileResponse, pb.ReadFileResponse]:
    """Read a file from an offset."""
    request = pb.ReadFileRequest(sandbox_id=sandbox_id, path=path, offset=offset, etag=etag, **present(length=length))
    return Call(methods.READ_FILE, request, lambda response: response, timeout=timeout)


def put_file(to: pb.WriteFileTarget, data: bytes, timeout: Timeout) -> Call[pb.PutFileResponse, FileInfo]:
    """Write a file with one request."""
    request = pb.PutFileRequest(target=to, data=data)
    return Call(
        methods.PUT_FILE,
        request,
        lambda response: convert.file_info(response.file),
        repeat=Repeat.SAFE if may_repeat(to) else Repeat.NEVER,
        timeout=timeout,
        minimum_timeout=PUT_TIMEOUT,
    )


def write_file(to: pb.WriteFileTarget, offset: int, timeout: Timeout) -> Call[pb.WriteFileResponse, FileInfo]:
    """Write a file from an offset. Further messages contain its bytes."""
    first = pb.WriteFileRequest(target=to)
    first.target.offset = offset
    return Call(
        methods.WRITE_FILE,
        first,
        lambda response: convert.file_info(response.file),
        repeat=Repeat.NEVER,
        timeout=timeout,
        minimum_timeout=TRANSFER_TIMEOUT,
    )


def file_part(data: bytes) -> pb.WriteFileRequest:
    """Return a message with the next bytes of a file."""
    return pb.WriteFileRequest(data=data)


def get_upload(sandbox_id: str, upload_id: str) -> Call[pb.GetUploadResponse, int]:
    """Read how many bytes of an upload the sandbox received."""
    request = pb.GetUploadRequest(sandbox_id=sandbox_id, upload_id=upload_id)
    return Call(methods.GET_UPLOAD, request, lambda response: response.received_bytes)


def stat_file(
    sandbox_id: str, path: str, follow_symlinks: bool, timeout: Timeout
) -> Call[pb.StatFileResponse, FileInfo]:
    """Describe a path."""
    request = pb.StatFileRequest(sandbox_id=sandbox_id, path=path, follow_symlinks=follow_symlinks)
    return Call(methods.STAT_FILE, request, lambda response: convert.file_info(response.file), timeout=timeout)


def list_directory(
    sandbox_id: str, path: str, depth: int, page_size: int | None, token: str, timeout: Timeout
) -> Call[pb.ListDirectoryResponse, Page[FileInfo]]:
    """Read one page of the contents of a directory."""
    request = pb.ListDirectoryRequest(
        sandbox_id=sandbox_id, path=path, depth=depth, page_size=page_size or 0, page_token=token
    )
    return Call(
        methods.LIST_DIRECTORY,
        request,
        lambda response: Page([convert.file_info(item) for item in response.files], response.next_page_token),
        timeout=timeout,
    )


def glob_files(
    sandbox_id: str, pattern: str, page_size: int | None, token: str, timeout: Timeout
) -> Call[pb.GlobFilesResponse, Page[FileInfo]]:
    """Read one page of the paths that match a pattern."""
    request = pb.GlobFilesRequest(sandbox_id=sandbox_id, pattern=pattern, page_size=page_size or 0, page_token=token)
    return Call(
        methods.GLOB_FILES,
        request,
        lambda response: Page([convert.file_info(item) for item in response.files], response.next_page_token),
        timeout=timeout,
    )


def make_directory(
    sandbox_id: str, path: str, mode: int | None, owner: str | None, timeout: Timeout
) -> Call[pb.MakeDirectoryResponse, FileInfo]:
    """Create a directory. The server returns an existing directory unchanged."""
    request = pb.MakeDirectoryRequest(sandbox_id=sandbox_id, path=path, **present(mode=mode, owner=owner))
    return Call(methods.MAKE_DIRECTORY, request, lambda response: convert.file_info(response.file), timeout=timeout)


def move_file(
    sandbox_id: str, source: str, destination: str, overwrite: bool, timeout: Timeout
) -> Call[pb.MoveFileResponse, FileInfo]:
    """Move a file or a directory. It is repeated only with `overwrite`."""

    def recover(error: SandpoolError) -> Call[Any, FileInfo] | None:
        """Describe the destination if a retry does not find the source: the first attempt moved it."""
        if isinstance(error, PathNotFoundError) and error.resource_name == source:
            return stat_file(sandbox_id, destination, False, timeout)
        return None

    request = pb.MoveFileRequest(sandbox_id=sandbox_id, source=source, destination=destination, overwrite=overwrite)
    return Call(
        methods.MOVE_FILE,
        request,
        lambda response: convert.file_info(response.file),
        repeat=Repeat.SAFE if overwrite else Repeat.NEVER,
        timeout=timeout,
        minimum_timeout=TRANSFER_TIMEOUT,
        recover=recover,
    )


def copy_file(
    sandbox_id: str, source: str, destination: str, overwrite: bool, timeout: Timeout
) -> Call[pb.CopyFileResponse, FileInfo]:
    """Copy a file or a directory. It is repeated only with `overwrite`."""
    request = pb.CopyFileRequest(sandbox_id=sandbox_id, source=source, destination=destination, overwrite=overwrite)
    return Call(
        methods.COPY_FILE,
        request,
        lambda response: convert.file_info(response.file),
        repeat=Repeat.SAFE if overwrite else Repeat.NEVER,
        timeout=timeout,
        minimum_timeout=TRANSFER_TIMEOUT,
    )


def remove_file(
    sandbox_id: str, path: str, recursive: bool, missing_ok: bool, timeout: Timeout
) -> Call[pb.RemoveFileResponse, None]:
    """Remove a file or a directory. It is repeated only with `missing_ok`."""
    request = pb.RemoveFileRequest(sandbox_id=sandbox_id, path=path, recursive=recursive, missing_ok=missing_ok)
    return Call(
        methods.REMOVE_FILE,
        request,
        lambda _: None,
        repeat=Repeat.SAFE if missing_ok else Repeat.NEVER,
        timeout=timeout,
        minimum_timeout=TRANSFER_TIMEOUT if recursive else 0.0,
    )


def watch_files(
    sandbox_id: str, path: str, recursive: bool, timeout: Timeout
) -> Call[pb.WatchFilesResponse, FileEvent | None]:
    """Watch a path. The first response confirms that the watch has started."""
    request = pb.WatchFilesRequest(sandbox_id=sandbox_id, path=path, recursive=recursive)
    return Call(methods.WATCH_FILES, request, convert.file_event, timeout=timeout)


def download_directory(sandbox_id: str, path: str, timeout: Timeout) -> Call[pb.DownloadDirectoryResponse, bytes]:
    """Read a directory as a tar archive."""
    request = pb.DownloadDirectoryRequest(sandbox_id=sandbox_id, path=path)
    return Call(methods.DOWNLOAD_DIRECTORY, request, lambda response: response.data, timeout=timeout)


def upload_directory(
    sandbox_id: str, path: str, owner: str | None, timeout: Timeout
) -> Call[pb.UploadDirectoryResponse, DirectoryUpload]:
    """Extract a tar archive into a directory. Further messages contain the archive."""
    to = pb.UploadDirectoryTarget(sandbox_id=sandbox_id, path=path, **present(owner=owner))
    return Call(
        methods.UPLOAD_DIRECTORY,
        pb.UploadDirectoryRequest(target=to),
        lambda response: DirectoryUpload(response.entries, response.bytes_written),
        repeat=Repeat.NEVER,
        timeout=timeout,
        minimum_timeout=TRANSFER_TIMEOUT,
    )


def directory_part(data: bytes) -> pb.UploadDirectoryRequest:
    """Return a message with the next bytes of an archive."""
    return pb.UploadDirectoryRequest(data=data)
