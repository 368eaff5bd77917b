"""Routes to the agents.

direct     The server connects to the container's IP address. This works if the server runs on the engine's host.
published  The server connects to a port published on the engine's host. This is necessary if the server runs on another
           machine (remote engine, Docker Desktop) or cannot route to the container network.

Any client that can reach the address of a published port can connect to it, including other sandboxes. The token of the
instance prevents unauthorized access. The token is not encrypted in transit, so the network between the server and a
remote engine must be trusted.
"""

import asyncio
import ipaddress
import secrets
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from docker.errors import APIError, DockerException

from sandpool_server.domain.errors import LaunchFailed
from sandpool_server.runtime import labels
from sandpool_server.runtime.agents import GrpcAgents
from sandpool_server.runtime.client import EngineClient, engine_url
from sandpool_server.runtime.container import AGENT_PATH, AGENT_PORT, TOKEN_VARIABLE, agent_mount
from sandpool_server.runtime.executors import BoundedExecutor
from sandpool_server.runtime.failures import EngineConflict, status
from sandpool_server.runtime.settings import Route, RuntimeSettings
from sandpool_server.runtime.shared import AgentBinary, empty_image, ignore_missing
from sandpool_server.runtime.ssh import ssh_host_name

PORT = f"{AGENT_PORT}/tcp"
_LOOPBACK = "127.0.0.1"
_PROBE_MEMORY = 64 * 1024 * 1024
_PROBE_PIDS = 64


@dataclass(frozen=True, slots=True)
class Reach:
    """The current route, and how to find an agent's address on it.

    On the published route, the engine publishes ports on the address `bind`, and the server connects to `host`.
    """

    route: Route
    bind: str = ""
    host: str = ""

    def publish(self, config: dict[str, Any]) -> None:
        """Add the published port of the agent to a create request, if the route is `published`."""
        if self.route == "published":
            config["ExposedPorts"] = {PORT: {}}
            config["HostConfig"]["PortBindings"] = {PORT: [{"HostIp": self.bind, "HostPort": ""}]}

    def inspected(self, network_settings: dict[str, Any]) -> str:
        """Return the agent's `host:port` from the network settings of an inspected container; empty if it has none."""
        bindings = (network_settings.get("Ports") or {}).get(PORT) or ()
        return self._choose(network_settings, [(one["HostIp"], one["HostPort"]) for one in bindings])

    def listed(self, found: dict[str, Any]) -> str:
        """Return the agent's `host:port` from an entry of the engine's container list; empty if it has none."""
        ports = (one for one in found.get("Ports") or () if one["PrivatePort"] == AGENT_PORT and one.get("PublicPort"))
        return self._choose(
            found.get("NetworkSettings") or {}, [(one.get("IP", ""), one["PublicPort"]) for one in ports]
        )

    def _choose(self, network_settings: dict[str, Any], published: list[tuple[str, Any]]) -> str:
        """Return the address for the route. A container that was created for another route may still use that route."""
        if self.route != "direct":
            for ip, port in published:
                if ":" not in ip:  # A port published on all addresses has an IPv4 and an IPv6 binding.
                    return f"{self.host if ip in ('', '0.0.0.0') and self.host else ip}:{port}"  # noqa: S104 (compared)
        for network in (network_settings.get("Networks") or {}).values():
            if network and network.get("IPAddress"):
                return f"{network['IPAddress']}:{AGENT_PORT}"
        return ""


UNKNOWN = Reach("auto")
"""The route before detection: a container is reached on the route for which it was created."""


async def find_reach(setup: BoundedExecutor, settings: RuntimeSettings, agent: AgentBinary) -> Reach:
    """Return the configured route, or detect it with a probe.

    The network and the agent's volume must exist. Raises `EngineConflict` if no route is possible.
    """
    if settings.route == "direct":
        return Reach("direct")
    if settings.route == "auto" and await _reaches_containers(setup, settings, agent):
        return Reach("direct")
    if settings.network_internal:
        raise EngineConflict(
            "the server cannot connect to the IP addresses of containers, and an internal network cannot publish "
            "ports; run the server on the engine's host, or use a network that is not internal"
        )
    host = await setup.run(lambda _: engine_host(engine_url(settings.base_url)), settings.prepare_secs)
    return Reach("published", settings.publish_ip or host, host)


def engine_host(url: str) -> str:
    """Return the IPv4 address of the engine's host from the engine's URL; 127.0.0.1 for a local engine. Blocks.

    Raises `EngineConflict` if the host name cannot be resolved.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"tcp", "http", "https", "ssh"}:
        return _LOOPBACK
    try:
        name = ssh_host_name(url) if parts.scheme == "ssh" else parts.hostname or ""
        address = str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, DockerException) as error:
        raise EngineConflict(
            f"cannot resolve the host of the engine {url!r} to an IPv4 address: {error}; check the engine's address"
        ) from error
    return _LOOPBACK if ipaddress.ip_address(address).is_loopback else address


async def _reaches_containers(setup: BoundedExecutor, settings: RuntimeSettings, agent: AgentBinary) -> bool:
    """Start an agent in a probe container and return whether the server can connect to it.

    The token ensures that the response comes from this agent, not from another host with the same address.
    """
    name = labels.probe_name(settings.server_id)
    agents = GrpcAgents(secrets.token_bytes(32))
    digest = agents.token_sha256(name)
    try:
        under_way = await setup.begin(lambda client: _start(client, settings, agent, digest), settings.prepare_secs)
        try:
            address = await setup.wait(under_way, settings.prepare_secs)
            await agents.wait_ready(name, address, settings.probe_secs)
        except LaunchFailed:
            return False
        else:
            return True
        finally:
            await asyncio.wait({under_way}, timeout=settings.undo_secs)
            await setup.run(lambda client: _remove(client, settings), settings.prepare_secs)
    finally:
        await agents.close()


def _start(client: EngineClient, settings: RuntimeSettings, agent: AgentBinary, token_sha256: str) -> str:
    """Start the probe container and return its address."""
    _remove(client, settings)  # A server that was killed may have left its probe.
    host: dict[str, Any] = {
        "NetworkMode": labels.network_name(settings.server_id),
        "Mounts": [agent_mount(agent.version, read_only=True)],
        "Memory": _PROBE_MEMORY,
        "PidsLimit": _PROBE_PIDS,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
    }
    if settings.oci_runtime:
        host["Runtime"] = settings.oci_runtime
    config = {
        "Image": empty_image(client, settings.server_id),
        "Entrypoint": [AGENT_PATH],
        "User": "0:0",
        "Env": [f"{TOKEN_VARIABLE}={token_sha256}"],
        "Labels": {labels.SERVER: settings.server_id, labels.AGENT: agent.version},
        "HostConfig": host,
    }
    container = client.create(config, labels.probe_name(settings.server_id))
    client.start(container)
    address = Reach("direct").inspected(client.inspect_container(container)["NetworkSettings"])
    if not address:
        raise EngineConflict(
            "the agent exited immediately after its start; check that --agent-binary is built for the engine's "
            "architecture"
        )
    return address


def _remove(client: EngineClient, settings: RuntimeSettings) -> None:
    """Remove the probe container and its image, if they exist and belong to this server."""
    name = labels.probe_name(settings.server_id)
    try:
        found = client.inspect_container(name)
    except APIError as error:
        if status(error) != 404:
            raise
    else:
        if labels.is_ours(found["Config"].get("Labels"), settings.server_id):
            ignore_missing(lambda: client.remove_container(found["Id"], force=True))
            _remove_image(client, settings.server_id, found["Image"])
    reference = f"{labels.filler_repository(settings.server_id)}:latest"
    ignore_missing(lambda: client.remove_image(reference, force=True))


def _remove_image(client: EngineClient, server_id: str, image: str) -> None:
    """Remove the image of an earlier probe. It has no name if it was untagged while the probe was running."""
    try:
        description = client.image(image)
    except APIError as error:
        if status(error) != 404:
            raise
        return
    if labels.is_ours((description.get("Config") or {}).get("Labels"), server_id):
        ignore_missing(lambda: client.remove_image(image, force=True))
