"""Names and labels of the objects that a server creates on an engine.

A server finds its own objects by these labels and does not modify others.
"""

from collections.abc import Mapping

from sandpool_server.domain.model import Instance

SERVER = "sandpool.server"
INSTANCE = "sandpool.instance"
_EARLIER_INSTANCE = "sandpool.member"
"""Instance label of servers before version 1.0. Their containers keep it, because labels of existing containers cannot
be changed. After an upgrade, the server must adopt or remove these containers; it would leak them otherwise.
"""
POOL = "sandpool.pool"
AGENT = "sandpool.agent"


def container_name(instance_id: str) -> str:
    """Return the name of an instance's container."""
    return f"sandpool-{instance_id}"


def network_name(server_id: str) -> str:
    """Return the name of the network of a server's sandboxes."""
    return f"sandpool-{server_id}"


def volume_name(agent_version: str) -> str:
    """Return the name of the volume that contains the agent. Servers with the same agent version share it."""
    return f"sandpool-agent-{agent_version}"


def filler_name(agent_version: str) -> str:
    """Return the name of the container that fills the agent's volume, which is also the engine-wide lock for this."""
    return f"sandpool-agent-filler-{agent_version}"


def filler_repository(server_id: str) -> str:
    """Return the name of the empty image of the filler. Each server has its own, so that none removes another's."""
    return f"sandpool-agent-filler-{server_id}"


def probe_name(server_id: str) -> str:
    """Return the name of the container with which a server detects the route to agents."""
    return f"sandpool-probe-{server_id}"


def instance_labels(server_id: str, instance: Instance, agent_version: str) -> dict[str, str]:
    """Return the labels of an instance's container."""
    return {SERVER: server_id, INSTANCE: instance.id, POOL: instance.pool_id, AGENT: agent_version}


def instance_id_of(labels: Mapping[str, str] | None) -> str:
    """Return the id of the instance to which a container with these labels belongs; empty if there is none."""
    found = labels or {}
    return found.get(INSTANCE) or found.get(_EARLIER_INSTANCE) or ""


def is_ours(labels: Mapping[str, str] | None, server_id: str, instance_id: str | None = None) -> bool:
    """Return whether this server created an object with these labels, for this instance if `instance_id` is given."""
    found = labels or {}
    return found.get(SERVER) == server_id and (instance_id is None or instance_id_of(found) == instance_id)
