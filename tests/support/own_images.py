"""Images that a test creates in the registry and on the engine."""

import io
import os
import secrets
import tarfile
import urllib.request
from pathlib import Path

from tests.support.engine_view import EngineView

BASE = "busybox:latest"
STATIC_PROGRAM = Path("/bin/busybox")
"""The program that the busybox image also contains."""

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class OwnImages:
    """Creates images with a unique name in the registry at `registry`. `remove` removes them from the engine."""

    def __init__(self, engine: EngineView, registry: str) -> None:
        self._engine = engine
        self._api = engine.api
        self.repository = f"{registry}/sandpool-test/{secrets.token_hex(4)}"
        self._created: set[str] = set()

    def push(self, tag: str, release: str) -> str:
        """Push a busybox image with the variable RELEASE and return its id.

        The tag also exists on the engine.
        """
        source = self._api.create_container(BASE, ["true"], network_disabled=True)["Id"]
        try:
            image = str(self._api.commit(source, self.repository, tag, changes=[f"ENV RELEASE={release}"])["Id"])
        finally:
            self._api.remove_container(source, force=True)
        self._created.add(image)  # A later push may move its tag to another image.
        self._push(tag)
        return image

    def push_bytes(self, tag: str, size: int) -> str:
        """Push an image with one file of `size` random bytes, remove it from the engine, and return its name."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("noise")
            entry.size = size
            archive.addfile(entry, io.BytesIO(os.urandom(size)))
        self._api.import_image_from_data(buffer.getvalue(), repository=self.repository, tag=tag)
        self._push(tag)
        self.remove_tag(tag)
        return f"{self.repository}:{tag}"

    def push_one_binary(self, tag: str) -> str:
        """Push an image that contains only one static program, `/program`, and return its name."""
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
        """Move the tag to another image on the engine. The tag in the registry does not change."""
        self._api.tag(image, self.repository, tag, force=True)

    def move(self, tag: str, to: str) -> None:
        """Move the tag to the image of the tag `to` in the registry. The tag on the engine does not change."""
        registry, _, name = self.repository.partition("/")
        manifests = f"http://{registry}/v2/{name}/manifests"
        with urllib.request.urlopen(
            urllib.request.Request(f"{manifests}/{to}", headers={"Accept": _MANIFEST})
        ) as found:
            manifest = found.read()
        headers = {"Content-Type": _MANIFEST}
        put = urllib.request.Request(f"{manifests}/{tag}", manifest, headers, method="PUT")
        with urllib.request.urlopen(put) as response:
            assert response.status == 201

    def remove_tag(self, tag: str) -> None:
        """Remove the tag from the engine, but not from the registry."""
        self._api.remove_image(f"{self.repository}:{tag}", force=True)

    def remove(self) -> None:
        """Remove all created images from the engine when no container uses them."""
        existing = set(self._api.images(quiet=True))
        for image in existing & (self._created | set(self._api.images(name=self.repository, quiet=True))):
            in_use = {"ancestor": image}
            self._engine.wait_until(lambda seen, f=in_use: not seen.api.containers(all=True, filters=f))  # type: ignore[misc]
            self._api.remove_image(image, force=True)
