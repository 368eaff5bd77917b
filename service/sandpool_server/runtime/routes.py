"""How the server reaches the agents.

direct     on the container's own address: where the server runs on the engine's machine
published  on a port of the engine's host: where it does not (a remote engine, Docker Desktop), or cannot route there

A published port is open to all who reach that address, other sandboxes included; what keeps them out is the member's
token. It travels in clear, so towards a remote engine the network between must be one to trust.
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
from sandpool_server.runtime.failures import EngineConflict, status
from sandpool_server.runtime.lanes import Lane
from sandpool_server.runtime.settings import Route, RuntimeSettings
from sandpool_server.runtime.shared import AgentBinary, empty_image, ignore_gone
from sandpool_server.runtime.ssh import ssh_host_name

PORT = f"{AGENT_PORT}/tcp"
_LOOPBACK = "127.0.0.1"
_PROBE_MEMORY = 64 * 1024 * 1024
_PROBE_PIDS = 64


@dataclass(frozen=True, slots=True)
class Reach:
    """The way in force. Published: ports are opened on `bind`, an address of the engine's host; `host` is its own."""

    route: Route
    bind: str = ""
    host: str = ""

    def publish(self, config: dict[str, Any]) -> None:
        """Have the agent's port published, where that is the way, by a container of this create request."""
        if self.route == "published":
            config["ExposedPorts"] = {PORT: {}}
            config["HostConfig"]["PortBindings"] = {PORT: [{"HostIp": self.bind, "HostPort": ""}]}

    def inspected(self, network_settings: dict[str, Any]) -> str:
        """The agent's `host:port` from what `inspect` says; empty when it has none."""
        bindings = (network_settings.get("Ports") or {}).get(PORT) or ()
        return self._choose(network_settings, [(one["HostIp"], one["HostPort"]) for one in bindings])

    def listed(self, found: dict[str, Any]) -> str:
        """The agent's `host:port` from an entry of the engine's list; empty when it has none."""
        ports = (one for one in found.get("Ports") or () if one["PrivatePort"] == AGENT_PORT and one.get("PublicPort"))
        return self._choose(
            found.get("NetworkSettings") or {}, [(one.get("IP", ""), one["PublicPort"]) for one in ports]
        )

    def _choose(self, network_settings: dict[str, Any], published: list[tuple[str, Any]]) -> str:
        """A container that was made while another way was in force may still be reached by it."""
        if self.route != "direct":
            for ip, port in published:
                if ":" not in ip:  # One of two when the port is open on all addresses.
                    return f"{self.host if ip in ('', '0.0.0.0') and self.host else ip}:{port}"  # noqa: S104 (compared)
        for network in (network_settings.get("Networks") or {}).values():
            if network and network.get("IPAddress"):
                return f"{network['IPAddress']}:{AGENT_PORT}"
        return ""


UNKNOWN = Reach("auto")
"""Before anything was found out: a container is reached as it was made to be."""


async def find_reach(setup: Lane, settings: RuntimeSettings, agent: AgentBinary) -> Reach:
    """Say how agents are reached: as set, else as one probe shows. The network and the agent's volume must be there."""
    if settings.route == "direct":
        return Reach("direct")
    if settings.route == "auto" and await _reaches_containers(setup, settings, agent):
        return Reach("direct")
    if settings.network_internal:
        raise EngineConflict(
            "the server cannot reach the containers' own addresses, and an internal network publishes no ports"
        )
    host = await setup.run(lambda _: engine_host(engine_url(settings.base_url)), settings.prepare_secs)
    return Reach("published", settings.publish_ip or host, host)


def engine_host(url: str) -> str:
    """The IPv4 address of the engine's host as its url names it, 127.0.0.1 for a local one. Blocks.

    Raises `EngineConflict` when the name cannot be resolved.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"tcp", "http", "https", "ssh"}:
        return _LOOPBACK
    try:
        name = ssh_host_name(url) if parts.scheme == "ssh" else parts.hostname or ""
        address = str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, DockerException) as error:
        raise EngineConflict(
            f"the engine's host at {url!r} has no IPv4 address that can be found, so agents cannot be reached there"
        ) from error
    return _LOOPBACK if ipaddress.ip_address(address).is_loopback else address


async def _reaches_containers(setup: Lane, settings: RuntimeSettings, agent: AgentBinary) -> bool:
    """Start an agent in a container of its own and see whether it, and no stranger at the same address, answers."""
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
    """Start the probe and return its own address."""
    _remove(client, settings)  # A server that was killed leaves its own.
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
        raise EngineConflict("the agent ended right after its start; is it built for the engine's architecture?")
    return address


def _remove(client: EngineClient, settings: RuntimeSettings) -> None:
    """Remove the probe and its image, if they are there and ours."""
    name = labels.probe_name(settings.server_id)
    try:
        found = client.inspect_container(name)
    except APIError as error:
        if status(error) != 404:
            raise
    else:
        if labels.is_ours(found["Config"].get("Labels"), settings.server_id):
            ignore_gone(lambda: client.remove_container(found["Id"], force=True))
            _remove_image(client, settings.server_id, found["Image"])
    reference = f"{labels.filler_repository(settings.server_id)}:latest"
    ignore_gone(lambda: client.remove_image(reference, force=True))


def _remove_image(client: EngineClient, server_id: str, image: str) -> None:
    """Remove the image of an earlier probe, which lost its name if that was taken away while the probe ran."""
    try:
        description = client.image(image)
    except APIError as error:
        if status(error) != 404:
            raise
        return
    if labels.is_ours((description.get("Config") or {}).get("Labels"), server_id):
        ignore_gone(lambda: client.remove_image(image, force=True))
