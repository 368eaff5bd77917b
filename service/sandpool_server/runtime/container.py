"""What a member's container is made of: the engine's create request, as a pure function.

Hardening: ordinary images work with the capabilities kept here (those that package managers, `su`, `chown` and servers
on low ports need); all others are dropped, and no process can gain more than it started with. Nothing of the host is
mounted but the agent's volume, read-only.

Disk: `ephemeral_disk_mb` bounds the container's own file system, by the engine's storage where that can, else by the
server's watch on what the engine measures. Neither sees anonymous volumes, which an image can ask for (`VOLUME`), so a
tmpfs takes the place of each: owned as the volume would be, as large as the limit at most, and counted as memory. What
the image itself holds at such a path is not seen in the container: the engine knows no other way to bound what is
written there. /dev/shm is a tmpfs too. The three small files that the engine mounts for name resolution (/etc/hosts,
/etc/hostname, /etc/resolv.conf) are on its own disk: there only the agent's limit on the size of a file holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sandpool_server.domain.model import Member
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
    """Where an image wants a volume (an absolute path), and the owner and permissions that the volume would have."""

    path: str
    uid: int
    gid: int
    mode: int


def agent_mount(agent_version: str, *, read_only: bool) -> dict[str, Any]:
    """Mount the agent's volume. Should the engine have to make it, it is labelled as we do."""
    return {
        "Type": "volume",
        "Source": labels.volume_name(agent_version),
        "Target": AGENT_DIR,
        "ReadOnly": read_only,
        "VolumeOptions": {"NoCopy": True, "Labels": {labels.AGENT: agent_version}},
    }


def container_config(
    member: Member,
    token_sha256: str,
    settings: RuntimeSettings,
    agent_version: str,
    *,
    disk_limits: bool,
    volumes: Iterable[VolumePlace] = (),
) -> dict[str, Any]:
    """Build the create request of a member's container.

    `disk_limits` says whether the engine's storage can bound a container's disk; where it cannot, the engine knows
    nothing of `ephemeral_disk_mb`. `volumes` are those that the image wants.
    """
    memory = member.spec.memory_mb * _MIB
    host: dict[str, Any] = {
        "NetworkMode": labels.network_name(settings.server_id),
        "Mounts": [agent_mount(agent_version, read_only=True)],
        "NanoCpus": round(member.spec.cpus * _NANO),
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
        "Init": False,  # The agent is the first process, and reaps.
        "AutoRemove": False,  # How a container ended must be readable until the server has removed it.
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
    }
    if settings.oci_runtime:
        host["Runtime"] = settings.oci_runtime
    tmpfs = {place.path: _tmpfs_options(place, member.spec.ephemeral_disk_mb) for place in volumes}
    if tmpfs:
        host["Tmpfs"] = tmpfs
    if disk_limits:
        host["StorageOpt"] = {"size": f"{member.spec.ephemeral_disk_mb}M"}
    return {
        "Image": member.spec.image,
        "Entrypoint": [AGENT_PATH],
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Hostname": member.id,
        "Env": [f"{TOKEN_VARIABLE}={token_sha256}"],
        "Healthcheck": {"Test": ["NONE"]},  # An image's own check would be an exec in the container every few seconds.
        "StopSignal": "SIGTERM",
        "Tty": False,
        "OpenStdin": False,
        "Labels": labels.member_labels(settings.server_id, member, agent_version),
        "HostConfig": host,
    }


def _tmpfs_options(place: VolumePlace, size_mb: int) -> str:
    return f"rw,exec,nosuid,nodev,uid={place.uid},gid={place.gid},mode={place.mode:o},size={size_mb}m"
