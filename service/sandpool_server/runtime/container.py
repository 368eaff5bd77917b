"""Configuration of an instance's container: a pure function that builds the create request for the engine.

Hardening: the container retains the capabilities that ordinary images need (for package managers, `su`, `chown` and
servers on low ports). All others are dropped, and no process can gain privileges. The only mount is the volume of the
agent, read-only.

Disk: `ephemeral_disk_mb` limits the container's writable layer. The engine's storage driver enforces the limit if it
can; otherwise the server's disk monitor does. Neither includes anonymous volumes, which an image can declare
(`VOLUME`). A tmpfs therefore replaces each of them: it has the owner and mode of the volume, `ephemeral_disk_mb` is its
maximum size, and it counts as memory. The image's content at such a path is hidden in the container, because the engine
has no other way to limit writes there. /dev/shm is a tmpfs too. The files that the engine mounts for name resolution
(/etc/hosts, /etc/hostname, /etc/resolv.conf) are on the disk of the engine; only the agent's limit on the size of a
file applies to them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sandpool_server.domain.model import Instance
from sandpool_server.runtime import labels
from sandpool_server.runtime.settings import RuntimeSettings

AGENT_DIR = "/.sandpool"
AGENT_PATH = f"{AGENT_DIR}/agent"
AGENT_PORT = 10240
TOKEN_VARIABLE = "SANDPOOL_AGENT_TOKEN_SHA256"  # noqa: S105 (a variable's name)

CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
)

SHM_MB = 64

_MIB = 1024 * 1024
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class VolumePlace:
    """The absolute path of a volume that an image declares, and the owner and mode that the volume would have."""

    path: str
    uid: int
    gid: int
    mode: int


def agent_mount(agent_version: str, *, read_only: bool) -> dict[str, Any]:
    """Return the mount of the agent's volume, with its labels in case that the engine has to create it."""
    return {
        "Type": "volume",
        "Source": labels.volume_name(agent_version),
        "Target": AGENT_DIR,
        "ReadOnly": read_only,
        "VolumeOptions": {"NoCopy": True, "Labels": {labels.AGENT: agent_version}},
    }


def container_config(
    instance: Instance,
    token_sha256: str,
    settings: RuntimeSettings,
    agent_version: str,
    *,
    disk_limits: bool,
    volumes: Iterable[VolumePlace] = (),
) -> dict[str, Any]:
    """Return the create request of an instance's container.

    Args:
        instance: The instance.
        token_sha256: The digest of the instance's token.
        settings: The settings of the runtime.
        agent_version: The version of the agent in the mounted volume.
        disk_limits: Whether the engine's storage driver can limit the disk of a container. If not, the request does
            not contain `ephemeral_disk_mb` as a storage option.
        volumes: The volumes that the image declares.
    """
    memory = instance.spec.memory_mb * _MIB
    host: dict[str, Any] = {
        "NetworkMode": labels.network_name(settings.server_id),
        "Mounts": [agent_mount(agent_version, read_only=True)],
        "NanoCpus": round(instance.spec.cpus * _NANO),
        "Memory": memory,
        "MemorySwap": memory,  # Equal to Memory: no swap.
        "OomKillDisable": False,
        "PidsLimit": settings.pids_limit,
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "IpcMode": "private",
        "ShmSize": SHM_MB * _MIB,
        "PublishAllPorts": False,
        "Init": False,  # The agent is process 1 and reaps zombies.
        "AutoRemove": False,  # The server reads the exit code before it removes the container.
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
    }
    if settings.oci_runtime:
        host["Runtime"] = settings.oci_runtime
    tmpfs = {place.path: _tmpfs_options(place, instance.spec.ephemeral_disk_mb) for place in volumes}
    if tmpfs:
        host["Tmpfs"] = tmpfs
    if disk_limits:
        host["StorageOpt"] = {"size": f"{instance.spec.ephemeral_disk_mb}M"}
    return {
        "Image": instance.spec.image,
        "Entrypoint": [AGENT_PATH],
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Hostname": instance.id,
        "Env": [f"{TOKEN_VARIABLE}={token_sha256}"],
        "Healthcheck": {"Test": ["NONE"]},  # The image's health check would run an exec every few seconds.
        "StopSignal": "SIGTERM",
        "Tty": False,
        "OpenStdin": False,
        "Labels": labels.instance_labels(settings.server_id, instance, agent_version),
        "HostConfig": host,
    }


def _tmpfs_options(place: VolumePlace, size_mb: int) -> str:
    return f"rw,exec,nosuid,nodev,uid={place.uid},gid={place.gid},mode={place.mode:o},size={size_mb}m"
