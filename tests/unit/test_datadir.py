"""The data directory of the server."""

import os
from pathlib import Path

import pytest

from sandpool_server.datadir import DataDir, DataDirLocked
from sandpool_server.vault import Vault


def test_creates_keys_once_and_readable_only_by_owner(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "data")
    key, secrets_keys = directory.token_key(), directory.secrets_keys()
    assert len(key) == 32
    Vault(secrets_keys)
    assert (directory.token_key(), directory.secrets_keys()) == (key, secrets_keys)
    for file in (tmp_path / "data").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    directory.close()


def test_ignores_unfinished_key_file(tmp_path: Path) -> None:
    (tmp_path / "agent-token.key.new").write_bytes(b"short")
    directory = DataDir(tmp_path)
    assert len(directory.token_key()) == 32
    assert not (tmp_path / "agent-token.key.new").exists()
    directory.close()


def test_rejects_second_server_until_first_closes(tmp_path: Path) -> None:
    first = DataDir(tmp_path)
    with pytest.raises(DataDirLocked, match=f"the data directory {tmp_path} is in use by another server"):
        DataDir(tmp_path)
    first.close()
    DataDir(tmp_path).close()


def test_lock_is_not_inherited_by_child_processes(tmp_path: Path) -> None:
    directory = DataDir(tmp_path)
    lock = next(fd for fd in os.listdir("/proc/self/fd") if _refers_to(fd, tmp_path / "lock"))
    assert not os.get_inheritable(int(lock))
    directory.close()


def _refers_to(fd: str, file: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == str(file)
    except FileNotFoundError:
        return False
