"""Images for the demo and the tests: pulled if possible, otherwise built from Debian packages.

A private engine gets built images from its local registry, so that a pull of `python:3.11-slim` works. Images are
imported into other engines, and only if the engine has no image of the same name.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.dev.console import Console, StepFailed
from tools.dev.debian import Packages, find_program
from tools.dev.engine_api import EngineClient, EngineError
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.stamps import Stamp, digest

PULL_STALL_SECONDS = 30.0
BUSYBOX = Path("/bin/busybox")
SUITE = "bookworm"  # the Debian release whose Python is 3.11


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its name, the function that builds its root file system, and its configuration.

    The build needs `program`, which is in the Debian package `package`.
    """

    name: str
    program: str
    package: str
    build: Callable[[Path, Console], None]
    changes: tuple[str, ...]
    recipe: str
    public: bool

    @property
    def file_name(self) -> str:
        """Name of the tar archive in the cache."""
        return self.name.replace(":", "-") + ".tar"


class Images:
    """Provides all images of `REQUIRED_IMAGES` on an engine."""

    def __init__(self, paths: Paths, console: Console, packages: Packages, *, offline: bool = False) -> None:
        self._cache = paths.cache / "images"
        self._lock = paths.cache / "images.lock"
        self._console = console
        self._packages = packages
        self._offline = offline

    def plan(self, client: EngineClient | None) -> list[str]:
        """Return the missing images and how they are provided, as texts.

        `client` is None for a private engine that is not running.
        """
        lines = []
        for image in REQUIRED_IMAGES:
            exists = client.has_image(image.name) if client is not None else self._seen(image).exists()
            if not exists:
                source = f"built from Debian packages ({image.package})"
                source = f"pulled, or {source} if the pull fails" if image.public else source
                lines.append(f"image {image.name}: {source}")
        return lines

    def ensure(self, client: EngineClient, registry: str | None) -> None:
        """Provide all images on the engine. `registry` is the local registry of a private engine."""
        for image in REQUIRED_IMAGES:
            if not client.has_image(image.name):
                with exclusive(self._lock, self._console, "building images"):
                    if not client.has_image(image.name):
                        self._provide(image, client, registry)
            if registry is not None:
                self._cache.mkdir(parents=True, exist_ok=True)
                self._seen(image).touch()

    def _provide(self, image: Image, client: EngineClient, registry: str | None) -> None:
        in_registry = registry is not None and self._pushed(image).exists()
        if in_registry or (image.public and not self._offline):
            try:
                with self._console.step(f"pulling {image.name}"):
                    client.pull(image.name, PULL_STALL_SECONDS)
                return
            except EngineError as error:
                self._console.say(f"    the pull failed: {error}")
        tar = self._built(image)
        with self._console.step(f"importing {image.name} into the engine"):
            client.import_image(tar, image.name, image.changes)
        if registry is not None:
            self._publish(image, client, registry)

    def _publish(self, image: Image, client: EngineClient, registry: str) -> None:
        """Push an imported image to the registry, and pull it under its public name."""
        local = f"{registry}/library/{image.name}"
        with self._console.step(f"pushing {image.name} to the local registry and pulling it"):
            client.tag(image.name, local)
            try:
                client.push(local)
                client.untag(image.name)
                client.pull(image.name, PULL_STALL_SECONDS)
            finally:
                client.untag(local)
            self._pushed(image).touch()

    def _seen(self, image: Image) -> Path:
        """Return the marker file that exists if the private engine has the image, even while it is not running."""
        return self._cache / f"{image.file_name}.seen"

    def _pushed(self, image: Image) -> Path:
        """Return the marker file that exists if the local registry has the image."""
        return self._cache / f"{image.file_name}.pushed"

    def _built(self, image: Image) -> Path:
        """Return the tar archive of the image's root file system. Builds it if it is not in the cache."""
        tar = self._cache / image.file_name
        stamp = Stamp(tar.with_suffix(".stamp"))
        version = digest((), image.recipe)
        if tar.exists() and stamp.matches(version):
            return tar
        if find_program(image.program) is None:
            self._packages.install([image.package], f"building {image.name}")
        self._cache.mkdir(parents=True, exist_ok=True)
        workshop = self._cache / "under-construction"
        with self._console.step(f"building {image.name}"):
            stamp.clear()
            _remove(workshop)
            workshop.mkdir()
            image.build(workshop / tar.name, self._console)
            (workshop / tar.name).replace(tar)
            _remove(workshop)
            stamp.write(version)
        return tar


def _remove(directory: Path) -> None:
    """Remove a directory. Raises `StepFailed` if a killed build left a mounted file system in it."""
    mounted = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {directory}/" in line]
    if mounted:
        raise StepFailed(
            f"cannot remove {directory}: a file system is mounted in it", f"run: umount {mounted[0].split()[4]}"
        )
    if directory.is_dir():
        shutil.rmtree(directory)


PYTHON_RECIPE = (
    "--variant=minbase",
    "--include=python3,ca-certificates",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    '--customize-hook=ln -s ../../bin/python3 "$1/usr/local/bin/python3"',
    '--customize-hook=ln -s ../../bin/python3 "$1/usr/local/bin/python"',
    "--customize-hook=chroot \"$1\" python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'",
)


def build_python(tar: Path, console: Console) -> None:
    """Build a minimal Debian with Python 3.11 from the package sources of this machine."""
    program = find_program("mmdebstrap")
    if program is None:
        raise StepFailed("mmdebstrap is not installed", "run this command again as root")
    env = os.environ | {"TMPDIR": str(tar.parent), "LC_ALL": "C.UTF-8"}
    hint = f"check that the package sources of this machine contain the Debian release {SUITE}"
    console.say("    this takes more than a minute, but only the first time")
    # In a separate mount namespace, all its mounts are removed when it exits.
    argv = ["unshare", "--mount", program, *PYTHON_RECIPE, SUITE, str(tar)]
    console.run("image", argv, env=env, hint=hint)


def build_busybox(tar: Path, console: Console) -> None:
    """Build a file system with a static busybox, a link for each of its programs, and the necessary files."""
    busybox = shutil.which("busybox") or str(BUSYBOX)
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    files = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    }
    directories = {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "home": 0o755}
    directories |= {"proc": 0o755, "sys": 0o755, "dev": 0o755, "usr": 0o755, "usr/bin": 0o755}
    with tarfile.open(tar, "w") as archive:
        for name, mode in directories.items():
            _add(archive, name, tarfile.DIRTYPE, mode)
        _add(archive, "bin/busybox", tarfile.REGTYPE, 0o755, content=Path(busybox).read_bytes())
        for applet in listed.stdout.split():
            if applet != "busybox":
                _add(archive, f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        for name, text in files.items():
            _add(archive, name, tarfile.REGTYPE, 0o644, content=text.encode())


def _add(
    archive: tarfile.TarFile,
    name: str,
    kind: bytes,
    mode: int,
    *,
    content: bytes = b"",
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(content)
    archive.addfile(entry, io.BytesIO(content))


PATH_OF_IMAGES = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
REQUIRED_IMAGES = (
    Image(
        name="python:3.11-slim",
        program="mmdebstrap",
        package="mmdebstrap",
        build=build_python,
        changes=(PATH_OF_IMAGES, "ENV LANG=C.UTF-8", 'CMD ["python3"]'),
        recipe=" ".join((*PYTHON_RECIPE, SUITE)),
        public=True,
    ),
    Image(
        name="busybox:latest",
        program="busybox",
        package="busybox-static",
        build=build_busybox,
        changes=(PATH_OF_IMAGES, 'CMD ["sh"]'),
        recipe="busybox 1",
        public=False,
    ),
)
