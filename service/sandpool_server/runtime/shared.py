"""What members share on an engine: the network of this server, and the volume that holds the agent.

All of it goes over the engine's API, so a remote engine works alike. The functions block; a lane runs them. Each can be
repeated, interrupted at any point and run by several servers at once: who fills the agent's volume holds an engine-wide
lock, the name of the container through which it is filled.
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
"""Storage drivers that may know a size; whether this one does (overlay2 only on xfs with pquota) is found by trying."""


@dataclass(frozen=True, slots=True)
class AgentBinary:
    """The agent's program. `version` is the first 12 hexadecimal digits of its SHA-256."""

    path: Path
    version: str
    size: int

    @classmethod
    def read(cls, path: Path) -> "AgentBinary":
        """Read the program once for its size and version. Raises `OSError`."""
        content = path.read_bytes()
        return cls(path, hashlib.sha256(content).hexdigest()[:12], len(content))

    def tar(self) -> bytes:
        """The program as the archive that the engine unpacks into the volume."""
        content = self.path.read_bytes()
        entry = tarfile.TarInfo(AGENT_PATH.rsplit("/", 1)[1])
        entry.size, entry.mode = len(content), 0o755
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Shared:
    """What was found out while preparing. `disk_limits`: the engine's storage can bound a container's disk."""

    disk_limits: bool


def prepare(client: EngineClient, settings: RuntimeSettings, agent: AgentBinary) -> Shared:
    """Make the network and fill the agent's volume, unless they are there. Raises `APIError`, `EngineConflict`."""
    ensure_network(client, settings)
    return _fill_volume(client, settings, agent)


def ensure_network(client: EngineClient, settings: RuntimeSettings) -> None:
    """Make the sandboxes' network: a bridge on which no container reaches another."""
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
            f"the engine has a network {network['Name']!r} that is not as this server makes it; remove that network"
        )


def _fill_volume(client: EngineClient, settings: RuntimeSettings, agent: AgentBinary) -> Shared:
    name = labels.volume_name(agent.version)
    client.create_volume(name, labels={labels.AGENT: agent.version})
    # Not by that answer: an engine that was started anew leaves labels out of it until somebody has looked there.
    volume = client.inspect_volume(name)
    if (volume.get("Labels") or {}).get(labels.AGENT) != agent.version:
        raise EngineConflict(f"the engine has a volume {name!r} that no sandpool server made; remove it")
    image = empty_image(client, settings.server_id)
    try:
        filler, disk_limits = _lock(client, settings.server_id, agent, image)
        try:
            if _size_of_agent(client, filler) != agent.size:
                client.put_archive(filler, AGENT_DIR, agent.tar())
                if _size_of_agent(client, filler) != agent.size:
                    raise EngineConflict(f"the agent could not be put into the volume {name!r}")
        finally:
            _remove_quietly(client, filler)
    finally:
        ignore_gone(lambda: client.remove_image(image, force=True))
    return Shared(disk_limits)


def empty_image(client: EngineClient, server_id: str) -> str:
    """Have an image of nothing, for a container needs one; what an earlier life left will do. Returns its reference."""
    reference = f"{labels.filler_repository(server_id)}:latest"
    if client.images(name=reference):
        return reference
    answer = client.import_image_from_data(
        _EMPTY_TAR,
        repository=labels.filler_repository(server_id),
        tag="latest",
        changes=[f"LABEL {labels.SERVER}={server_id}"],
    )
    for line in str(answer).splitlines():
        if "error" in (said := json.loads(line)):
            raise EngineConflict(f"the engine takes no image for the agent's volume: {said['error']}")
    return reference


def _lock(client: EngineClient, server_id: str, agent: AgentBinary, image: str) -> tuple[str, bool]:
    """Create (never start) the filler. Whoever has it may write to the volume; others wait until it is removed.

    Returns its id and whether the engine took a limit on its disk.
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
            raise EngineConflict(f"the engine has a container {name!r} that no sandpool server made; remove it")
        if holder["Id"] != seen:
            seen, since = holder["Id"], time.monotonic()
        # Its maker is this server in an earlier life, or has had time enough: it was killed half-way.
        if labels.is_ours(holder["Config"].get("Labels"), server_id) or time.monotonic() - since > _STALE_LOCK_SECS:
            _remove_quietly(client, holder["Id"])
        else:
            _wait_gone(client, holder["Id"], 1.0)


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
    """The size of the program in the container's volume, None if there is none; asks for no content."""
    answer = client.head(
        f"{client.base_url}/v{client.api_version}/containers/{container}/archive", params={"path": AGENT_PATH}
    )
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    size = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))["size"]
    return int(size)


def _wait_gone(client: EngineClient, container: str, timeout: float) -> None:
    """Return when the container is gone, or after `timeout` seconds."""
    try:
        client.wait(container, timeout=timeout, condition="removed")  # type: ignore[arg-type]  # takes fractions
    except APIError as error:
        if status(error) != 404:
            raise
    except requests.RequestException:
        return


def _remove_quietly(client: EngineClient, container: str) -> None:
    """Remove a container that was never started; what another server did first is done."""
    ignore_gone(lambda: client.remove_container(container, force=True))


def ignore_gone(action: Any) -> None:
    """Do what may be done already, or be under way (404, 409)."""
    try:
        action()
    except APIError as error:
        if status(error) not in {404, 409}:
            raise


def remove_network(client: EngineClient, server_id: str) -> None:
    """Remove this server's network, if it is there and ours."""
    name = labels.network_name(server_id)
    for network in client.networks(names=[name]):
        if network["Name"] == name and labels.is_ours(network.get("Labels"), server_id):
            ignore_gone(lambda found=network["Id"]: client.remove_network(found))


def remove_images(client: EngineClient, server_id: str) -> None:
    """Remove the images that this server imported and was killed before it removed them."""
    for image in client.images(all=True, filters={"label": f"{labels.SERVER}={server_id}"}):
        ignore_gone(lambda found=image["Id"]: client.remove_image(found))


def remove_volume(client: EngineClient, agent_version: str) -> None:
    """Remove the agent's volume unless a container, of whatever server, uses it."""
    name = labels.volume_name(agent_version)
    for volume in client.volumes(filters={"label": labels.AGENT, "name": name})["Volumes"] or []:
        if volume["Name"] == name:
            ignore_gone(lambda: client.remove_volume(name))
