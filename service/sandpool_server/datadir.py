"""The data directory: the database, the keys, and a lock that prevents a second server from using it."""

import fcntl
import os
import secrets
from pathlib import Path

from sandpool_server.vault import new_key


class DataDirLocked(Exception):
    """Another server uses the directory."""


class DataDir:
    """A data directory that this process has locked.

    The directory is created if it does not exist, and only its owner can read it. The lock lasts until `close` or
    until the process exits.
    """

    def __init__(self, path: Path) -> None:
        """Create the directory if necessary, and lock it.

        Raises `DataDirLocked` if another process has locked it, and `OSError` if it cannot be created or written.
        """
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DataDirLocked(
                f"the data directory {path} is in use by another server; stop that server, or use another directory "
                "with --data-dir"
            ) from None

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database in the directory."""
        return f"sqlite:///{self.path / 'sandpool.db'}"

    def token_key(self) -> bytes:
        """Return the 32-byte key from which agent tokens are derived. Creates the key at the first call."""
        file = self.path / "agent-token.key"
        if not file.exists():
            _write_private(file, secrets.token_bytes(32))
        return file.read_bytes()

    def secrets_keys(self) -> list[str]:
        """Return the encryption keys of secrets, the current key first. Creates a key at the first call."""
        file = self.path / "secrets.key"
        if not file.exists():
            self.write_secrets_keys([new_key()])
        return file.read_text().split()

    def write_secrets_keys(self, keys: list[str]) -> None:
        """Replace the encryption keys of secrets; the first key is the current one."""
        _write_private(self.path / "secrets.key", "".join(f"{key}\n" for key in keys).encode())

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)


def _write_private(file: Path, content: bytes) -> None:
    """Write a file atomically, readable only by its owner. A crash never leaves a truncated key."""
    unfinished = file.with_suffix(f"{file.suffix}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    unfinished.rename(file)
