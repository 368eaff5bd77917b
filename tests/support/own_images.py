"""Images of a test's own, in the registry and on the engine."""

import io
import os
import secrets
import tarfile
import urllib.request
from pathlib import Path

from tests.support.engine_view import EngineView

BASE = "busybox:latest"
STATIC_PROGRAM = Path("/bin/busybox")
"""What the busybox image is built from, too."""

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class OwnImages:
    """Makes images under names of its own in the registry at `registry`; `remove` takes them off the engine."""

    def __init__(self, engine: EngineView, registry: str) -> None:
        self._engine = engine
        self._api = engine.api
        self.repository = f"{registry}/sandpool-test/{secrets.token_hex(4)}"
        self._made: set[str] = set()

    def push(self, tag: str, release: str) -> str:
        """Push a busybox whose variable RELEASE is as given; the engine has it under that tag then, too.

        Returns the image's id.
        """
        made = self._api.create_container(BASE, ["true"], network_disabled=True)["Id"]
        try:
            image = str(self._api.commit(made, self.repository, tag, changes=[f"ENV RELEASE={release}"])["Id"])
        finally:
            self._api.remove_container(made, force=True)
        self._made.add(image)  # Its tag may move on to another.
        self._push(tag)
        return image

    def push_bytes(self, tag: str, size: int) -> str:
        """Push an image with one file of that many random bytes, and take it off the engine; returns its name."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("noise")
            entry.size = size
            archive.addfile(entry, io.BytesIO(os.urandom(size)))
        self._api.import_image_from_data(buffer.getvalue(), repository=self.repository, tag=tag)
        self._push(tag)
        self.forget(tag)
        return f"{self.repository}:{tag}"

    def push_one_binary(self, tag: str) -> str:
        """Push an image that holds one static program, `/program`, and nothing else; returns its name."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("program")
            entry.size, entry.mode = STATIC_PROGRAM.stat().st_size, 0o755
            with STATIC_PROGRAM.open("rb") as program:
                archive.addfile(entry, program)
        self._api.import_image_from_data(buffer.getvalue(), repository=self.repository, tag=tag)
        self._push(tag)
        return f"{self.repository}:{tag}"

    def _push(self, tag: str) -> None:
        for line in self._api.push(self.repository, tag=tag, stream=True, decode=True):
            assert "error" not in line, line

    def point(self, tag: str, image: str) -> None:
        """Let the tag name another image on the engine; the registry's tag stays as it is."""
        self._api.tag(image, self.repository, tag, force=True)

    def move(self, tag: str, to: str) -> None:
        """Let the registry's tag name what its tag `to` names; the engine does not learn of it."""
        registry, _, name = self.repository.partition("/")
        manifests = f"http://{registry}/v2/{name}/manifests"
        with urllib.request.urlopen(
            urllib.request.Request(f"{manifests}/{to}", headers={"Accept": _MANIFEST})
        ) as found:
            manifest = found.read()
        headers = {"Content-Type": _MANIFEST}
        put = urllib.request.Request(f"{manifests}/{tag}", manifest, headers, method="PUT")
        with urllib.request.urlopen(put) as answer:
            assert answer.status == 201

    def forget(self, tag: str) -> None:
        """Take the tag off the engine; the registry keeps it."""
        self._api.remove_image(f"{self.repository}:{tag}", force=True)

    def remove(self) -> None:
        """Take all of them off the engine, once no container uses them any more."""
        there = set(self._api.images(quiet=True))
        for image in there & (self._made | set(self._api.images(name=self.repository, quiet=True))):
            in_use = {"ancestor": image}
            self._engine.wait_until(lambda seen, f=in_use: not seen.api.containers(all=True, filters=f))  # type: ignore[misc]
            self._api.remove_image(image, force=True)
