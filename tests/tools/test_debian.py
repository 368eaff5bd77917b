"""The policy that prevents packages from starting their services."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.dev.debian import MARK, remove_leftover_policy, services_held


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy-rc.d"


def test_forbids_services_during_the_block_only(policy: Path) -> None:
    with services_held(policy):
        assert subprocess.run([policy, "docker", "start"], check=False).returncode == 101
    assert not policy.exists()


def test_removes_the_policy_when_the_installation_fails(policy: Path) -> None:
    with pytest.raises(ValueError, match="apt"), services_held(policy):
        raise ValueError("apt")
    assert list(policy.parent.iterdir()) == []


def test_does_not_change_the_policy_of_another_program(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 0\n")
    with services_held(policy):
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert remove_leftover_policy(policy) is False
    assert policy.exists()


def test_replaces_the_policy_of_a_killed_run(policy: Path) -> None:
    policy.write_text(f"#!/bin/sh\n{MARK}\nexit 101\n")
    with services_held(policy):
        assert policy.exists()
    assert not policy.exists()


def test_removes_the_policy_of_a_killed_run(policy: Path) -> None:
    policy.write_text(f"#!/bin/sh\n{MARK}\nexit 101\n")
    assert remove_leftover_policy(policy) is True
    assert not policy.exists()
