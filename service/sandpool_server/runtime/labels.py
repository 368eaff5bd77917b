"""Names and labels of what the server makes on an engine, so that it finds its own again and touches nothing else."""

from collections.abc import Mapping

from sandpool_server.domain.model import Member

SERVER = "sandpool.server"
MEMBER = "sandpool.member"
POOL = "sandpool.pool"
AGENT = "sandpool.agent"


def container_name(member_id: str) -> str:
    """The name of a member's container."""
    return f"sandpool-{member_id}"


def network_name(server_id: str) -> str:
    """The name of the network that a server's sandboxes share."""
    return f"sandpool-{server_id}"


def volume_name(agent_version: str) -> str:
    """The name of the volume that holds the agent; servers of the same agent share it."""
    return f"sandpool-agent-{agent_version}"


def filler_name(agent_version: str) -> str:
    """The name of the container that fills the agent's volume, and the engine-wide lock on doing so."""
    return f"sandpool-agent-filler-{agent_version}"


def filler_repository(server_id: str) -> str:
    """The name of the empty image that the filler is made of; one for each server, so that none removes another's."""
    return f"sandpool-agent-filler-{server_id}"


def probe_name(server_id: str) -> str:
    """The name of the container by which a server finds out how it reaches agents."""
    return f"sandpool-probe-{server_id}"


def member_labels(server_id: str, member: Member, agent_version: str) -> dict[str, str]:
    """The labels of a member's container."""
    return {SERVER: server_id, MEMBER: member.id, POOL: member.pool_id, AGENT: agent_version}


def is_ours(labels: Mapping[str, str] | None, server_id: str, member_id: str | None = None) -> bool:
    """Whether an object with these labels was made by this server (for this member, if one is named)."""
    found = labels or {}
    return found.get(SERVER) == server_id and (member_id is None or found.get(MEMBER) == member_id)
