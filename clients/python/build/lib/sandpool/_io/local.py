"""Files and folders of this machine that are sent and received. Everything in here blocks: see `in_thread`."""

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
    """Bytes of a known size that can be read from any place."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from an offset on."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from an offset on."""
        return bytes(self._data[offset : offset + size])

    def close(self) -> None:
        """Let go of it."""


class FileSource:
    """A file of this machine, as large as it is when it is opened."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - `close` closes it
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from an offset on, none beyond the size that it had."""
        self._file.seek(offset)
        return self._file.read(min(size, self.size - offset))

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


class Incoming:
    """A file of this machine that is being received: it appears under its name when it is whole."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        number = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._file: IO[bytes] = os.fdopen(number, "wb")

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._file.write(data)

    def finish(self, mode: int) -> None:
        """It is whole: give it its mode, within the process's umask, and its name."""
        self._file.close()
        may_read = self._part.stat().st_mode & 0o666
        self._part.chmod(mode & (may_read | (may_read & 0o444) >> 2))
        self._part.replace(self._path)

    def drop(self) -> None:
        """Throw it away, unless it is finished."""
        self._file.close()
        self._part.unlink(missing_ok=True)


def archive(folder: str | os.PathLike[str]) -> Iterator[bytes]:
    """A folder as a tar archive, in parts; names are relative to it. Links are kept as links, sockets left out."""
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    with tempfile.TemporaryFile() as nothing, tarfile.open(fileobj=nothing, mode="w") as maker:
        for path in sorted(root.rglob("*")):
            info = maker.gettarinfo(path, arcname=path.relative_to(root).as_posix())
            if info is None:  # a socket
                continue
            if not info.isreg():
                yield info.tobuf(tarfile.PAX_FORMAT)
                continue
            with path.open("rb") as file:
                yield from _member(info, file)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _member(info: tarfile.TarInfo, file: IO[bytes]) -> Iterator[bytes]:
    """A regular file with its header, as large as it is now."""
    info.size = os.fstat(file.fileno()).st_size
    yield info.tobuf(tarfile.PAX_FORMAT)
    left = info.size
    while left:
        data = file.read(min(_PART, left))
        if not data:
            raise OSError(f"{info.name} became shorter while it was read")
        left -= len(data)
        yield data
    padding = -info.size % tarfile.BLOCKSIZE
    if padding:
        yield b"\0" * padding


class Unpacking:
    """A tar archive that is being received, to be unpacked when it is whole."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._file.write(data)

    def unpack(self, folder: str | os.PathLike[str]) -> int:
        """Unpack it into a folder, which is made where it is missing; gives the number of entries.

        The archive comes from a sandbox, so nothing of it is trusted: whatever would lie or lead outside of the folder,
        and every device, raises `tarfile.FilterError`.
        """
        if not hasattr(tarfile, "data_filter"):
            raise RuntimeError("this Python cannot unpack archives safely; use 3.10.12, 3.11.4 or newer")
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file.seek(0)
        entries = 0
        with tarfile.open(fileobj=self._file, mode="r:") as opened:
            opened.extraction_filter = tarfile.data_filter
            opened.errorlevel = 1
            for member in opened:
                opened.extract(member, folder)
                entries += 1
        return entries

    def close(self) -> None:
        """Let go of it."""
        self._file.close()
