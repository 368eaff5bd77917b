"""The server's folder."""

import os
from pathlib import Path

import pytest

from sandpool_server.datadir import DataDir, DataDirLocked
from sandpool_server.vault import Vault


def test_keys_are_made_once_and_readable_by_the_owner_alone(tmp_path: Path) -> None:
    folder = DataDir(tmp_path / "data")
    key, secrets_keys = folder.token_key(), folder.secrets_keys()
    assert len(key) == 32
    Vault(secrets_keys)
    assert (folder.token_key(), folder.secrets_keys()) == (key, secrets_keys)
    for file in (tmp_path / "data").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    folder.close()


def test_what_a_kill_left_unfinished_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "agent-token.key.new").write_bytes(b"short")
    folder = DataDir(tmp_path)
    assert len(folder.token_key()) == 32
    assert not (tmp_path / "agent-token.key.new").exists()
    folder.close()


def test_a_second_server_is_kept_out_until_the_first_is_gone(tmp_path: Path) -> None:
    first = DataDir(tmp_path)
    with pytest.raises(DataDirLocked, match=f"another server works in {tmp_path}"):
        DataDir(tmp_path)
    first.close()
    DataDir(tmp_path).close()


def test_the_lock_is_not_handed_on_to_children(tmp_path: Path) -> None:
    folder = DataDir(tmp_path)
    lock = next(fd for fd in os.listdir("/proc/self/fd") if _names(fd, tmp_path / "lock"))
    assert not os.get_inheritable(int(lock))
    folder.close()


def _names(fd: str, file: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == str(file)
    except FileNotFoundError:
        return False
