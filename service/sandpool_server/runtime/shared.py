"""Objects that instances share on an engine: the network of this server, and the volume that contains the agent.

All functions use the engine's API only, so they also work with a remote engine. They block; an executor runs them. They
are idempotent, can be interrupted at any point, and can run in several servers at the same time. An engine-wide lock
protects the agent's volume while a server fills it: the name of the container that fills it.
"""

import base64
import hashlib
import io
import json
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool

from sandpool_server.runtime import labels
from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.container import AGENT_DIR, AGENT_PATH, agent_mount
from sandpool_server.runtime.failures import EngineConflict, status
from sandpool_server.runtime.settings import RuntimeSettings

_ICC = "com.docker.network.bridge.enable_icc"
_EMPTY_TAR = b"\0" * 1024
_STALE_LOCK_SECS = 30.0
_PROBE_SIZE = "1G"
_DRIVERS_WITH_SIZE = frozenset({"btrfs", "zfs", "overlay2"})
"""Storage drivers that may support a size limit. A trial shows it; overlay2 does so only on xfs with pquota."""


@dataclass(frozen=True, slots=True)
class AgentBinary:
    """The agent program. `version` is the first 12 hexadecimal digits of its SHA-256 digest."""

    path: Path
    version: str
    size: int

    @classmethod
    def read(cls, path: Path) -> "AgentBinary":
        """Read the program and return its size and version. Raises `OSError`."""
        content = path.read_bytes()
        return cls(path, hashlib.sha256(content).hexdigest()[:12], len(content))

    def tar(self) -> bytes:
        """Return a tar archive of the program, which the engine unpacks into the volume."""
        content = self.path.read_bytes()
        entry = tarfile.TarInfo(AGENT_PATH.rsplit("/", 1)[1])
        entry.size, entry.mode = len(content), 0o755
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Shared:
    """Result of the preparation. `disk_limits` is whether the storage driver can limit the disk of a container."""

    disk_limits: bool


def prepare(client: EngineClient, settings: RuntimeSettings, agent: AgentBinary) -> Shared:
    """Create the network and fill the agent's volume, unless they exist. Raises `APIError` and `EngineConflict`."""
    ensure_network(client, settings)
    return _fill_volume(client, settings, agent)


def ensure_network(client: EngineClient, settings: RuntimeSettings) -> None:
    """Create the network of the sandboxes: a bridge that isolates containers from each other."""
    name = labels.network_name(settings.server_id)
    for network in client.networks(names=[name]):
        if network["Name"] == name:
            _check_network(network, settings)
            return
    subnet = settings.network_subnet
    client.create_network(
        name,
        driver="bridge",
        options={_ICC: "false"},
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)]) if subnet else None,
        check_duplicate=True,
        internal=settings.network_internal,
        labels={labels.SERVER: settings.server_id},
    )


def _check_network(network: dict[str, Any], settings: RuntimeSettings) -> None:
    ours = labels.is_ours(network.get("Labels"), settings.server_id)
    isolated = network.get("Driver") == "bridge" and (network.get("Options") or {}).get(_ICC) == "false"
    if not ours or not isolated or bool(network.get("Internal")) != settings.network_internal:
        raise EngineConflict(
            f"the engine has a network {network['Name']!r} with another configuration than this server needs; remove "
            "that network"
        )


def _fill_volume(client: EngineClient, settings: RuntimeSettings, agent: AgentBinary) -> Shared:
    name = labels.volume_name(agent.version)
    client.create_volume(name, labels={labels.AGENT: agent.version})
    # The response of the create request is not sufficient: after a restart, the engine omits the labels of an existing
    # volume there until the volume is inspected.
    volume = client.inspect_volume(name)
    if (volume.get("Labels") or {}).get(labels.AGENT) != agent.version:
        raise EngineConflict(f"the engine has a volume {name!r} that no sandpool server created; remove that volume")
    image = empty_image(client, settings.server_id)
    try:
        filler, disk_limits = _lock(client, settings.server_id, agent, image)
        try:
            if _size_of_agent(client, filler) != agent.size:
                client.put_archive(filler, AGENT_DIR, agent.tar())
                if _size_of_agent(client, filler) != agent.size:
                    raise EngineConflict(
                        f"cannot copy the agent into the volume {name!r}; check the free disk space of the engine, "
                        "or remove that volume"
                    )
        finally:
            _remove_filler(client, filler)
    finally:
        ignore_missing(lambda: client.remove_image(image, force=True))
    return Shared(disk_limits)


def empty_image(client: EngineClient, server_id: str) -> str:
    """Return the reference of an empty image, because a container needs an image. Imports the image if necessary."""
    reference = f"{labels.filler_repository(server_id)}:latest"
    if client.images(name=reference):
        return reference
    response = client.import_image_from_data(
        _EMPTY_TAR,
        repository=labels.filler_repository(server_id),
        tag="latest",
        changes=[f"LABEL {labels.SERVER}={server_id}"],
    )
    for line in str(response).splitlines():
        if "error" in (message := json.loads(line)):
            raise EngineConflict(f"the engine cannot import the image of the agent's volume: {message['error']}")
    return reference


def _lock(client: EngineClient, server_id: str, agent: AgentBinary, image: str) -> tuple[str, bool]:
    """Create the filler container, which is never started, as a lock for the volume.

    Waits while another server has the lock. Returns the id of the container, and whether the engine accepted a limit of
    its disk.
    """
    name = labels.filler_name(agent.version)
    seen, since = "", time.monotonic()
    while True:
        try:
            return _create_filler(client, server_id, agent, image, name)
        except APIError as error:
            if status(error) != 409:
                raise
        try:
            holder = client.inspect_container(name)
        except APIError as error:
            if status(error) != 404:
                raise
            continue
        if labels.AGENT not in (holder["Config"].get("Labels") or {}):
            raise EngineConflict(
                f"the engine has a container {name!r} that no sandpool server created; remove that container"
            )
        if holder["Id"] != seen:
            seen, since = holder["Id"], time.monotonic()
        # The lock is stale if it belongs to an earlier process of this server, or if it is held for too long: the
        # process that created it was killed.
        if labels.is_ours(holder["Config"].get("Labels"), server_id) or time.monotonic() - since > _STALE_LOCK_SECS:
            _remove_filler(client, holder["Id"])
        else:
            _wait_removed(client, holder["Id"], 1.0)


def _create_filler(client: EngineClient, server_id: str, agent: AgentBinary, image: str, name: str) -> tuple[str, bool]:
    config: dict[str, Any] = {
        "Image": image,
        "Entrypoint": [AGENT_PATH],
        "NetworkDisabled": True,
        "Labels": {labels.SERVER: server_id, labels.AGENT: agent.version},
        "HostConfig": {"NetworkMode": "none", "Mounts": [agent_mount(agent.version, read_only=False)]},
    }
    if client.info().get("Driver") in _DRIVERS_WITH_SIZE:
        limited = config | {"HostConfig": config["HostConfig"] | {"StorageOpt": {"size": _PROBE_SIZE}}}
        try:
            return client.create(limited, name), True
        except APIError as error:
            if status(error) == 409:
                raise
    return client.create(config, name), False


def _size_of_agent(client: EngineClient, container: str) -> int | None:
    """Return the size of the agent program in the container's volume, None if it does not exist."""
    response = client.head(
        f"{client.base_url}/v{client.api_version}/containers/{container}/archive", params={"path": AGENT_PATH}
    )
    if response.status_code == 404:
        return None
    response.raise_for_status()
    size = json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))["size"]
    return int(size)


def _wait_removed(client: EngineClient, container: str, timeout: float) -> None:
    """Return when the container is removed, or after `timeout` seconds."""
    try:
        client.wait(container, timeout=timeout, condition="removed")  # type: ignore[arg-type]  # accepts fractions
    except APIError as error:
        if status(error) != 404:
            raise
    except requests.RequestException:
        return


def _remove_filler(client: EngineClient, container: str) -> None:
    """Remove a filler container, unless another server has already removed it."""
    ignore_missing(lambda: client.remove_container(container, force=True))


def ignore_missing(action: Any) -> None:
    """Run a removal and ignore that the object is already removed or being removed (404, 409)."""
    try:
        action()
    except APIError as error:
        if status(error) not in {404, 409}:
            raise


def remove_network(client: EngineClient, server_id: str) -> None:
    """Remove the network of this server, if it exists and this server created it."""
    name = labels.network_name(server_id)
    for network in client.networks(names=[name]):
        if network["Name"] == name and labels.is_ours(network.get("Labels"), server_id):
            ignore_missing(lambda found=network["Id"]: client.remove_network(found))


def remove_images(client: EngineClient, server_id: str) -> None:
    """Remove images that this server imported and did not remove because it was killed."""
    for image in client.images(all=True, filters={"label": f"{labels.SERVER}={server_id}"}):
        ignore_missing(lambda found=image["Id"]: client.remove_image(found))


def remove_volume(client: EngineClient, agent_version: str) -> None:
    """Remove the agent's volume, unless a container of any server uses it."""
    name = labels.volume_name(agent_version)
    for volume in client.volumes(filters={"label": labels.AGENT, "name": name})["Volumes"] or []:
        if volume["Name"] == name:
            ignore_missing(lambda: client.remove_volume(name))
