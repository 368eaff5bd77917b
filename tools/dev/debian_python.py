"""A Python that the machine's own release does not have, unpacked from the packages of a newer Debian.

Nothing is installed and nothing needs root: apt-get fetches into a folder of its own, and the interpreter starts with
the C library that came along.
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
"""Releases of Debian by the Python they have."""
LARGEST_WAIT = "180"  # seconds for one apt-get; it needs less than ten
HINT = "nothing, unless the machine's Debian package sources should have that release"
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
    """The interpreter of a version such as `3.14`, from the cache or from the machine's mirror of Debian.

    None when no release has it. StepFailed when the release cannot be had here. What is in the cache is not renewed.
    """
    release = RELEASES.get(version)
    if release is None:
        return None
    folder = cache / f"debian-{release}-{version}"
    launcher = folder / "usr" / "bin" / "python"
    if not launcher.exists():
        if find_program("apt-get") is None or find_program("dpkg-deb") is None:
            raise StepFailed("this machine has no Debian packages")
        cache.mkdir(parents=True, exist_ok=True)
        with (
            console.step(f"Python {version}, unpacked from Debian {release} (27 MB to fetch)"),
            tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as work,
        ):
            _unpack(version, release, Path(work), console)
            _write_launcher(version, Path(work) / "root", folder)
            shutil.rmtree(folder, ignore_errors=True)
            (Path(work) / "root").replace(folder)
    return launcher


def _unpack(version: str, release: str, work: Path, console: Console) -> None:
    """The packages' files in `work`/root. The machine's own lists of packages stay as they are."""
    (work / "sources.list").write_text(SOURCE.format(mirror=_mirror(), release=release))
    (work / "apt.conf").write_text(SETTINGS.format(home=work))
    (work / "status").touch()
    for name in ("lists", "archives", "root"):
        (work / name).mkdir()
    env = os.environ | {"APT_CONFIG": str(work / "apt.conf"), "LC_ALL": "C.UTF-8"}
    apt = ["timeout", LARGEST_WAIT, "apt-get", "-q"]
    wanted = [f"python{version}-minimal", f"libpython{version}-stdlib", "libstdc++6"]
    console.run("pythons", [*apt, "update"], env=env, hint=HINT)
    console.run("pythons", [*apt, "-y", "--download-only", "install", *wanted], env=env, hint=HINT)
    for package in sorted((work / "archives").glob("*.deb")):
        console.run("pythons", ["dpkg-deb", "--extract", package, work / "root"])


def _mirror() -> str:
    """Where the machine gets the packages of its own release from: newer ones are beside them."""
    try:
        release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        release = ""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Release: {release}"]
    found = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60).stdout.split()
    if not found:
        raise StepFailed("apt-get names no package source for this machine's own release", HINT)
    return found[0]


def _write_launcher(version: str, root: Path, final: Path) -> None:
    """Make `root`, once it is called `final`, start without regard to the machine's C library."""
    loader = next(root.glob("usr/lib/*/ld-linux*.so.*"), None)
    program = root / "usr" / "bin" / f"python{version}"
    if loader is None or not program.exists():
        raise StepFailed("the packages have no interpreter or no loader where they used to be")
    parts = {"loader": loader, "libraries": loader.parent, "program": program}
    launcher = root / "usr" / "bin" / "python"
    launcher.write_text(LAUNCHER.format(**{name: final / path.relative_to(root) for name, path in parts.items()}))
    launcher.chmod(0o755)
