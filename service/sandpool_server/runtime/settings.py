"""What the runtime can be told: one frozen value, made by the application from its own settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Route = Literal["auto", "direct", "published"]
"""How agents are reached: on the containers' own addresses (direct), on ports published on the engine's host, or by
whichever of the two one probe finds when the engine is prepared (auto).
"""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """How to reach the engine and how to treat it. Durations are in seconds.

    `server_id` marks everything that this server makes; `agent_binary` is the static agent for the engine's
    architecture. `base_url` (unix://, tcp:// or ssh://) empty means DOCKER_HOST, else the default socket;
    DOCKER_TLS_VERIFY and DOCKER_CERT_PATH count for tcp:// in any case.
    """

    server_id: str
    agent_binary: Path
    base_url: str = ""

    create_parallelism: int = 4
    """Containers made and started at once; a start is mostly CPU of the engine's host."""
    remove_parallelism: int = 2
    query_parallelism: int = 2
    pull_parallelism: int = 4

    route: Route = "auto"
    publish_ip: str = ""
    """Published: the IPv4 address of the engine's host on which agents' ports are opened; 0.0.0.0 for all it has.

    Empty: 127.0.0.1 where the engine is local, else the address that the engine's url names.
    """
    probe_secs: float = 8.0
    """How long the probe tries to reach a container's own address."""

    network_subnet: str = ""
    """Subnet of the sandboxes' network in CIDR form; empty lets the engine choose (often a /16)."""
    network_internal: bool = False
    """True cuts the sandboxes off from everything but the host."""
    pids_limit: int = 1024
    """Processes and threads in one container, the agent's own included."""
    oci_runtime: str = ""
    """Name of the engine's runtime to use (such as `runsc`); empty for the engine's default."""
    stop_grace_secs: int = 0
    """How long a container may take to end by itself before it is killed at removal. 0 kills at once."""

    ping_secs: float = 1.0
    query_secs: float = 10.0
    disk_secs: float = 30.0
    """For measuring what all containers have written: the engine looks at each of their files."""
    launch_secs: float = 30.0
    """For create, start and inspect of one container together, once it is its turn."""
    remove_secs: float = 30.0
    prepare_secs: float = 60.0
    pull_idle_secs: float = 60.0
    """A pull that makes no progress for so long has failed."""
    pull_secs: float = 3600.0
    pull_report_secs: float = 0.2
    """The shortest time between two reports of a pull's progress."""
    queue_secs: float = 120.0
    """How long a call waits for its turn when as many of its class as allowed are under way."""
    undo_secs: float = 10.0
    """How long a cancelled launch waits for the engine before it removes what was made, or leaves that to a task."""
    event_idle_secs: float = 60.0
    """A stream of events that is silent for so long is opened anew, for a half-dead connection looks the same."""
