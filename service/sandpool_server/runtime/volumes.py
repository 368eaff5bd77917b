"""Where an image wants volumes, and whose they are to be.

What takes a volume's place should belong to whom it would have belonged to: many images run as a user of their own and
write nowhere else. Who owns a folder only the engine can tell, off a container of the image that is made and never
started; so that is done once an image (20 ms), and only for images that want volumes.
"""

import contextlib
import posixpath
import tarfile
from typing import Any

from sandpool_server.runtime import labels
from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.container import AGENT_DIR, VolumePlace
from sandpool_server.runtime.failures import EngineDown

_MAX_KNOWN = 1000


class Volumes:
    """The places of images' volumes, by the engine's id of the image. Used by several threads."""

    def __init__(self, server_id: str) -> None:
        self._server_id = server_id
        self._known: dict[str, tuple[VolumePlace, ...]] = {}

    def places(self, client: EngineClient, image: dict[str, Any]) -> tuple[VolumePlace, ...]:
        """Where the image, of which this is the engine's description, wants volumes. Blocks."""
        wanted = (image.get("Config") or {}).get("Volumes") or ()
        paths = {posixpath.normpath(f"/{path.lstrip('/')}") for path in wanted} - {AGENT_DIR, "/"}
        if not paths:
            return ()
        digest = str(image["Id"])
        if digest not in self._known:
            found = self._look(client, digest, sorted(paths))
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[digest] = found
        return self._known[digest]

    def _look(self, client: EngineClient, image: str, paths: list[str]) -> tuple[VolumePlace, ...]:
        config = {
            "Image": image,
            "Entrypoint": ["/nothing"],
            "Labels": {labels.SERVER: self._server_id},
            "HostConfig": {"NetworkMode": "none"},
        }
        container = client.create(config, "")
        try:
            return tuple(_place(client, container, path) for path in paths)
        finally:
            client.remove_container(container, v=True, force=True)


def _place(client: EngineClient, container: str, path: str) -> VolumePlace:
    """Look at the path in a container; what is not there would be root's."""
    url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
    plain = {"Accept-Encoding": "identity"}
    with contextlib.closing(client.get(url, params={"path": path}, headers=plain, stream=True)) as answer:
        if answer.status_code == 404:
            return VolumePlace(path, 0, 0, 0o755)
        answer.raise_for_status()
        try:
            with tarfile.open(fileobj=answer.raw, mode="r|") as archive:
                entry = archive.next()
        except tarfile.TarError as error:
            raise EngineDown("the container engine gave no sensible answer about the image's volumes") from error
    if entry is None:
        return VolumePlace(path, 0, 0, 0o755)
    return VolumePlace(path, entry.uid, entry.gid, entry.mode & 0o7777)
