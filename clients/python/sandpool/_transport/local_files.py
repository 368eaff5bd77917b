"""Local files and directories that are sent and received. All functions block; call them with `in_thread`."""

from __future__ import annotations

import os
import secrets
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

_PART = 1024 * 1024


class Source(Protocol):
    """Bytes of a known size that can be read at any offset."""

    size: int
    """The number of bytes."""

    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from an offset."""
        ...

    def close(self) -> None:
        """Close the source."""
        ...


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from an offset."""
        return bytes(self._data[offset : offset + size])

    def close(self) -> None:
        """Close the source."""


class FileSource:
    """A local file. Its size is the size when it was opened."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - closed by `close`
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from an offset, and none after the original size."""
        self._file.seek(offset)
        return self._file.read(min(size, self.size - offset))

    def close(self) -> None:
        """Close the source."""
        self._file.close()


class Incoming:
    """A local file that is being received. It appears under its path when it is complete."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        number = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._file: IO[bytes] = os.fdopen(number, "wb")

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def finish(self, mode: int) -> None:
        """Set the mode, limited by the umask of the process, and move the complete file to its path."""
        self._file.close()
        may_read = self._part.stat().st_mode & 0o666
        self._part.chmod(mode & (may_read | (may_read & 0o444) >> 2))
        self._part.replace(self._path)

    def drop(self) -> None:
        """Delete the received bytes, unless the file is complete."""
        self._file.close()
        self._part.unlink(missing_ok=True)


def archive(directory: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield a directory as a tar archive, in parts. Names are relative to it. Links stay links; sockets are omitted."""
    root = Path(directory)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a directory")
    with tempfile.TemporaryFile() as nothing, tarfile.open(fileobj=nothing, mode="w") as maker:
        for path in sorted(root.rglob("*")):
            info = maker.gettarinfo(path, arcname=path.relative_to(root).as_posix())
            if info is None:  # This is a socket.
                continue
            if not info.isreg():
                yield info.tobuf(tarfile.PAX_FORMAT)
                continue
            with path.open("rb") as file:
                yield from _regular_file(info, file)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _regular_file(info: tarfile.TarInfo, file: IO[bytes]) -> Iterator[bytes]:
    """Yield a regular file with its header. Its size is the size now."""
    info.size = os.fstat(file.fileno()).st_size
    yield info.tobuf(tarfile.PAX_FORMAT)
    left = info.size
    while left:
        data = file.read(min(_PART, left))
        if not data:
            raise OSError(f"{info.name} became shorter while it was read; upload it again")
        left -= len(data)
        yield data
    padding = -info.size % tarfile.BLOCKSIZE
    if padding:
        yield b"\0" * padding


class Unpacking:
    """A tar archive that is being received. It is extracted when it is complete."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def unpack(self, directory: str | os.PathLike[str]) -> int:
        """Extract the archive into a directory, which is created if it does not exist. Return the number of entries.

        The archive comes from a sandbox and is not trusted.

        Raises:
            tarfile.FilterError: An entry is a device, or it would be written or would point outside of the directory.
        """
        if not hasattr(tarfile, "data_filter"):
            raise RuntimeError("this Python cannot extract archives safely; use Python 3.10.12, 3.11.4 or newer")
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._file.seek(0)
        entries = 0
        with tarfile.open(fileobj=self._file, mode="r:") as opened:
            opened.extraction_filter = tarfile.data_filter
            opened.errorlevel = 1
            for entry in opened:
                opened.extract(entry, directory)
                entries += 1
        return entries

    def close(self) -> None:
        """Close the source."""
        self._file.close()
