"""Packages are installed without their services, and the means to that is not left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.dev.debian import MARK, forget_leftover_policy, services_held


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy-rc.d"


def test_services_are_forbidden_meanwhile_and_allowed_after(policy: Path) -> None:
    with services_held(policy):
        assert subprocess.run([policy, "docker", "start"], check=False).returncode == 101
    assert not policy.exists()


def test_the_policy_goes_when_the_installation_fails(policy: Path) -> None:
    with pytest.raises(ValueError, match="apt"), services_held(policy):
        raise ValueError("apt")
    assert list(policy.parent.iterdir()) == []


def test_someone_elses_policy_stays_as_it_is(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 0\n")
    with services_held(policy):
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert forget_leftover_policy(policy) is False
    assert policy.exists()


def test_ours_that_a_killed_run_left_is_taken_over(policy: Path) -> None:
    policy.write_text(f"#!/bin/sh\n{MARK}\nexit 101\n")
    with services_held(policy):
        assert policy.exists()
    assert not policy.exists()


def test_ours_that_a_killed_run_left_is_removed_by_the_next_run(policy: Path) -> None:
    policy.write_text(f"#!/bin/sh\n{MARK}\nexit 101\n")
    assert forget_leftover_policy(policy) is True
    assert not policy.exists()
