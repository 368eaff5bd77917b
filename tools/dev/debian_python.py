"""Python versions that this machine's Debian release does not have, unpacked from packages of a newer release.

This installs no packages and does not need root: apt-get downloads to a separate directory, and the interpreter starts
with the C library of the newer release.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.dev.console import Console, StepFailed
from tools.dev.debian import find_program

RELEASES = {"3.13": "trixie", "3.14": "forky"}
"""Releases of Debian by Python version."""
MAX_SECONDS = "180"  # For one run of apt-get, which needs less than 10 seconds.
HINT = "none is necessary, unless the package sources of this machine should contain that release"
SETTINGS = """\
Dir::Etc::SourceList "{home}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "{home}";
Dir::State::Status "{home}/status";
Dir::Cache "{home}";
APT::Sandbox::User "";
APT::Install-Recommends "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "1";
Acquire::http::Timeout "15";
Acquire::https::Timeout "15";
"""
SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {release} main\n"
LAUNCHER = """\
#!/bin/sh
exec {loader} --argv0 "$0" --library-path {libraries} {program} "$@"
"""


def debian_python(version: str, cache: Path, console: Console) -> Path | None:
    """Return the interpreter of a version such as `3.14`, from the cache or from this machine's Debian mirror.

    Cached interpreters are not updated. Returns None if no release has the version. Raises `StepFailed` if the release
    is not available.
    """
    release = RELEASES.get(version)
    if release is None:
        return None
    directory = cache / f"debian-{release}-{version}"
    launcher = directory / "usr" / "bin" / "python"
    if not launcher.exists():
        if find_program("apt-get") is None or find_program("dpkg-deb") is None:
            raise StepFailed("this machine has no apt-get or dpkg-deb")
        cache.mkdir(parents=True, exist_ok=True)
        with (
            console.step(f"Python {version}, unpacked from Debian {release} (27 MB to download)"),
            tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as work,
        ):
            _unpack(version, release, Path(work), console)
            _write_launcher(version, Path(work) / "root", directory)
            shutil.rmtree(directory, ignore_errors=True)
            (Path(work) / "root").replace(directory)
    return launcher


def _unpack(version: str, release: str, work: Path, console: Console) -> None:
    """Unpack the packages to `work`/root. Does not change the package lists of this machine."""
    (work / "sources.list").write_text(SOURCE.format(mirror=_mirror(), release=release))
    (work / "apt.conf").write_text(SETTINGS.format(home=work))
    (work / "status").touch()
    for name in ("lists", "archives", "root"):
        (work / name).mkdir()
    env = os.environ | {"APT_CONFIG": str(work / "apt.conf"), "LC_ALL": "C.UTF-8"}
    apt = ["timeout", MAX_SECONDS, "apt-get", "-q"]
    packages = [f"python{version}-minimal", f"libpython{version}-stdlib", "libstdc++6"]
    console.run("pythons", [*apt, "update"], env=env, hint=HINT)
    console.run("pythons", [*apt, "-y", "--download-only", "install", *packages], env=env, hint=HINT)
    for package in sorted((work / "archives").glob("*.deb")):
        console.run("pythons", ["dpkg-deb", "--extract", package, work / "root"])


def _mirror() -> str:
    """Return the mirror from which this machine installs packages. It also has the packages of newer releases."""
    try:
        release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        release = ""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Release: {release}"]
    found = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60).stdout.split()
    if not found:
        raise StepFailed("apt-get has no package source for the release of this machine", HINT)
    return found[0]


def _write_launcher(version: str, root: Path, final: Path) -> None:
    """Write a launcher that starts the interpreter with its own C library. `root` will be renamed to `final`."""
    loader = next(root.glob("usr/lib/*/ld-linux*.so.*"), None)
    program = root / "usr" / "bin" / f"python{version}"
    if loader is None or not program.exists():
        raise StepFailed(f"the packages of Python {version} contain no interpreter or no loader at the expected path")
    parts = {"loader": loader, "libraries": loader.parent, "program": program}
    launcher = root / "usr" / "bin" / "python"
    launcher.write_text(LAUNCHER.format(**{name: final / path.relative_to(root) for name, path in parts.items()}))
    launcher.chmod(0o755)
