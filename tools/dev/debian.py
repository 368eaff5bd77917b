"""Packages from the distribution, installed without letting their services start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.dev.console import Console, StepFailed
from tools.dev.locks import exclusive
from tools.dev.paths import Paths

POLICY = Path("/usr/sbin/policy-rc.d")
MARK = "# made by the set-up of sandpool while it installs packages; safe to remove"
UNITS = (
    "docker.service",
    "docker.socket",
    "containerd.service",
    "docker-registry.service",
    "ssh.service",
    "ssh.socket",
)
TEST_PROGRAMS = {
    "mkfs.btrfs": "btrfs-progs",
    "sshd": "openssh-server",
    "ip": "iproute2",
    "iptables": "iptables",
    "chromium": "chromium",
}
"""What the tests on engines of their own and the one in a browser need: programs, and the packages that have them."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_program(name: str) -> str | None:
    """The full path of a program, also in the folders that only root's PATH has."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def missing_test_packages() -> list[str]:
    """Packages that only tests need and that can be installed here; those tests leave themselves out without root."""
    if os.geteuid() != 0 or find_program("apt-get") is None:
        return []
    return [package for program, package in TEST_PROGRAMS.items() if find_program(program) is None]


@contextmanager
def services_held(policy: Path = POLICY) -> Iterator[None]:
    """Forbid packages to start their services meanwhile, by Debian's policy-rc.d.

    A policy that someone else made stays as it is. One of ours that a killed run left behind is
    taken over and removed in the end.
    """
    if policy.exists() and not _is_ours(policy):
        yield
        return
    temporary = policy.with_name(f"{policy.name}.sandpool-{os.getpid()}")
    temporary.write_text(f"#!/bin/sh\n{MARK}\nexit 101\n")
    temporary.chmod(0o755)
    temporary.replace(policy)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def forget_leftover_policy(policy: Path = POLICY) -> bool:
    """Remove a policy of ours that a killed run left behind; call with the package lock held."""
    if not _is_ours(policy):
        return False
    policy.unlink(missing_ok=True)
    return True


def _is_ours(policy: Path) -> bool:
    try:
        return MARK in policy.read_text(errors="replace")
    except OSError:
        return False


class Packages:
    """apt-get, one run at a time, with what a killed run left half-done finished first."""

    def __init__(self, paths: Paths, console: Console) -> None:
        self._lock = paths.runtime / "packages.lock"
        self._console = console

    def tidy(self) -> None:
        """Remove what a killed installation left behind, unless one is under way."""
        if _is_ours(POLICY) and os.access(POLICY.parent, os.W_OK):
            with exclusive(self._lock, self._console, "installing packages"):
                forget_leftover_policy()

    def install(self, names: Sequence[str], why: str) -> None:
        """Install packages; none of their services is started now or at the next boot."""
        listed = " ".join(names)
        if find_program("apt-get") is None or os.geteuid() != 0:
            raise StepFailed(
                f"{why} needs packages that only root on Debian can have installed here: {listed}",
                "run this as root on Debian 12, or install them yourself and run it again",
            )
        with (
            exclusive(self._lock, self._console, "installing packages"),
            self._console.step(f"Debian packages: {listed}"),
            services_held(),
        ):
            units = self._units_present()
            if any(Path("/var/lib/dpkg/updates").iterdir()):
                self._apt(["dpkg", "--configure", "-a"])
            self._apt(["apt-get", "-q", "update"])
            wait = "DPkg::Lock::Timeout=600"
            self._apt(["apt-get", "-q", "-y", "-o", wait, "install", "--no-install-recommends", *names])
            self._keep_from_boot(self._units_present() - units)

    def _apt(self, argv: list[str]) -> None:
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        hint = "look at the log; `apt-get install` by hand shows whether the machine's sources work"
        self._console.run("packages", argv, env=env, hint=hint)

    def _units_present(self) -> set[str]:
        folders = (Path("/lib/systemd/system"), Path("/etc/systemd/system"))
        return {unit for unit in UNITS if any((folder / unit).exists() for folder in folders)}

    def _keep_from_boot(self, units: set[str]) -> None:
        """An engine that we start privately must not come up as a service at the next boot."""
        if units and find_program("systemctl") is not None:
            self._console.run("packages", ["systemctl", "--no-reload", "disable", *sorted(units)])
