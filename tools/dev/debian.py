"""Installation of Debian packages without starting their services."""

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
MARK = "# made by the setup of sandpool while it installs packages; safe to remove"
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
"""Programs that the tests with separate engines and the browser test need, and the packages that contain them."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_program(name: str) -> str | None:
    """Return the path of a program. Also searches the directories that only root has in PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def missing_test_packages() -> list[str]:
    """Return the missing packages that only tests need. Empty without root or apt-get; these tests are skipped then."""
    if os.geteuid() != 0 or find_program("apt-get") is None:
        return []
    return [package for program, package in TEST_PROGRAMS.items() if find_program(program) is None]


@contextmanager
def services_held(policy: Path = POLICY) -> Iterator[None]:
    """Prevent packages from starting their services during the block, with Debian's policy-rc.d.

    An existing policy of another program is not changed. A policy that a killed run left behind is replaced, and
    removed at the end of the block.
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


def remove_leftover_policy(policy: Path = POLICY) -> bool:
    """Remove a policy that a killed run left behind. The caller must hold the package lock.

    Returns whether there was one.
    """
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
    """Runs apt-get, one run at a time. Completes an interrupted installation of a killed run first."""

    def __init__(self, paths: Paths, console: Console) -> None:
        self._lock = paths.runtime / "packages.lock"
        self._console = console

    def tidy(self) -> None:
        """Remove the policy that a killed installation left behind, unless an installation is active."""
        if _is_ours(POLICY) and os.access(POLICY.parent, os.W_OK):
            with exclusive(self._lock, self._console, "installing packages"):
                remove_leftover_policy()

    def install(self, names: Sequence[str], why: str) -> None:
        """Install packages. Their services are not started, neither now nor at the next boot.

        `why` is the purpose of the packages, for the error message. Raises `StepFailed`.
        """
        listed = " ".join(names)
        if find_program("apt-get") is None or os.geteuid() != 0:
            raise StepFailed(
                f"{why} needs packages that are not installed: {listed}",
                "run this command as root on Debian 12, or install the packages and run it again",
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
        hint = "read the log; check the package sources of this machine with `apt-get update`"
        self._console.run("packages", argv, env=env, hint=hint)

    def _units_present(self) -> set[str]:
        directories = (Path("/lib/systemd/system"), Path("/etc/systemd/system"))
        return {unit for unit in UNITS if any((directory / unit).exists() for directory in directories)}

    def _keep_from_boot(self, units: set[str]) -> None:
        """Disable units, so that a privately started engine is not started as a service at the next boot."""
        if units and find_program("systemctl") is not None:
            self._console.run("packages", ["systemctl", "--no-reload", "disable", *sorted(units)])
