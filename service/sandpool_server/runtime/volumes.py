"""Volumes that an image declares, with their owners and modes.

The tmpfs that replaces a volume must have the volume's owner: many images run as their own user and write only to the
volume. The owner of a directory can be read only from a container, so the server creates a container of the image and
never starts it. This takes 20 ms, once for each image that declares volumes.
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
    """A cache of the volumes of images, by the engine's image id. Thread-safe."""

    def __init__(self, server_id: str) -> None:
        self._server_id = server_id
        self._known: dict[str, tuple[VolumePlace, ...]] = {}

    def places(self, client: EngineClient, image: dict[str, Any]) -> tuple[VolumePlace, ...]:
        """Return the volumes of an image. `image` is the engine's description of it. Blocks."""
        declared = (image.get("Config") or {}).get("Volumes") or ()
        paths = {posixpath.normpath(f"/{path.lstrip('/')}") for path in declared} - {AGENT_DIR, "/"}
        if not paths:
            return ()
        digest = str(image["Id"])
        if digest not in self._known:
            found = self._inspect(client, digest, sorted(paths))
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[digest] = found
        return self._known[digest]

    def _inspect(self, client: EngineClient, image: str, paths: list[str]) -> tuple[VolumePlace, ...]:
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
    """Return the owner and mode of a path in a container. A path that does not exist would belong to root."""
    url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
    plain = {"Accept-Encoding": "identity"}
    with contextlib.closing(client.get(url, params={"path": path}, headers=plain, stream=True)) as response:
        if response.status_code == 404:
            return VolumePlace(path, 0, 0, 0o755)
        response.raise_for_status()
        try:
            with tarfile.open(fileobj=response.raw, mode="r|") as archive:
                entry = archive.next()
        except tarfile.TarError as error:
            raise EngineDown(
                f"the container engine returned an invalid archive of the image's volume {path!r}; check the engine's "
                "log"
            ) from error
    if entry is None:
        return VolumePlace(path, 0, 0, 0o755)
    return VolumePlace(path, entry.uid, entry.gid, entry.mode & 0o7777)
