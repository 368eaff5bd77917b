"""The server's folder: its database, the key of its agents' tokens, and the lock that keeps a second server out."""

import fcntl
import os
import secrets
from pathlib import Path

from sandpool_server.vault import new_key


class DataDirLocked(Exception):
    """Another server works in the folder."""


class DataDir:
    """The folder, made if it is missing, readable by its owner alone, locked until `close` or the process's end."""

    def __init__(self, path: Path) -> None:
        """Take the folder. Raises `DataDirLocked`, and `OSError` when it cannot be made or written."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DataDirLocked(
                f"another server works in {path}; stop it, or give this one a folder of its own with --data-dir"
            ) from None

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the database in the folder."""
        return f"sqlite:///{self.path / 'sandpool.db'}"

    def token_key(self) -> bytes:
        """The 32 bytes that agents' tokens are derived from; made the first time."""
        file = self.path / "agent-token.key"
        if not file.exists():
            _write_private(file, secrets.token_bytes(32))
        return file.read_bytes()

    def secrets_keys(self) -> list[str]:
        """The keys that secrets are encrypted with, the present one first; one is made the first time."""
        file = self.path / "secrets.key"
        if not file.exists():
            self.keep_secrets_keys([new_key()])
        return file.read_text().split()

    def keep_secrets_keys(self, keys: list[str]) -> None:
        """Replace the keys that secrets are encrypted with."""
        _write_private(self.path / "secrets.key", "".join(f"{key}\n" for key in keys).encode())

    def close(self) -> None:
        """Let the folder go."""
        os.close(self._lock)


def _write_private(file: Path, content: bytes) -> None:
    """Write a file for its owner alone, complete or not at all: a kill half-way leaves no short key behind."""
    unfinished = file.with_suffix(f"{file.suffix}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    unfinished.rename(file)
