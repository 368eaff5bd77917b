"""Settings of the runtime, which the application derives from the server settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Route = Literal["auto", "direct", "published"]
"""Route to the agents: IP addresses of the containers (direct), ports published on the engine's host (published), or
the one that a probe detects when the engine is prepared (auto).
"""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Address, limits and timeouts of the engine. Durations are in seconds.

    `server_id` is the label of all objects that this server creates. `agent_binary` is the static agent for the
    engine's architecture. `base_url` is a unix://, tcp:// or ssh:// address; empty means DOCKER_HOST or the default
    socket. DOCKER_TLS_VERIFY and DOCKER_CERT_PATH always apply to tcp://.
    """

    server_id: str
    agent_binary: Path
    base_url: str = ""

    create_parallelism: int = 4
    """Maximum number of concurrent container starts. A start mainly needs CPU time of the engine's host."""
    remove_parallelism: int = 2
    query_parallelism: int = 2
    pull_parallelism: int = 4

    route: Route = "auto"
    publish_ip: str = ""
    """IPv4 address of the engine's host on which the ports of agents are published; 0.0.0.0 means all addresses.

    Empty: 127.0.0.1 if the engine is local, otherwise the host of the engine's URL.
    """
    probe_secs: float = 8.0
    """Time limit of the probe that connects to a container's IP address."""

    network_subnet: str = ""
    """Subnet of the sandboxes' network in CIDR notation. Empty: the engine selects one, often a /16."""
    network_internal: bool = False
    """Whether sandboxes can connect only to the host."""
    pids_limit: int = 1024
    """Maximum number of processes and threads in a container, including those of the agent."""
    oci_runtime: str = ""
    """OCI runtime of the containers, for example `runsc`. Empty: the default runtime of the engine."""
    stop_grace_secs: int = 0
    """Time that a container has to exit at removal before it is killed. 0 kills immediately."""

    ping_secs: float = 1.0
    query_secs: float = 10.0
    disk_secs: float = 30.0
    """Time limit for measuring the writable layers of all containers, for which the engine reads each file's size."""
    launch_secs: float = 30.0
    """Time limit for create, start and inspect of a container together, after the launch has left the queue."""
    remove_secs: float = 30.0
    prepare_secs: float = 60.0
    pull_idle_secs: float = 60.0
    """A pull without progress fails after this time."""
    pull_secs: float = 3600.0
    pull_report_secs: float = 0.2
    """Minimum time between two progress reports of a pull."""
    queue_secs: float = 120.0
    """Maximum time that a call waits for a free thread of its executor."""
    undo_secs: float = 10.0
    """Time that a cancelled launch waits for the engine before it removes the container, or leaves this to a task."""
    event_idle_secs: float = 60.0
    """An event stream without data for this time is reopened, because a broken connection looks the same."""
