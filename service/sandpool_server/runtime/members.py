"""Blocking calls that make, list and remove members' containers; lanes run them."""

import threading
from typing import Any

from docker.errors import APIError

from sandpool_server.ports import MemberRef
from sandpool_server.runtime import labels
from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.container import AGENT_PORT
from sandpool_server.runtime.failures import EngineConflict, EngineDown, status

_ENDED = frozenset({"exited", "dead"})
_RUNNING = frozenset({"running", "paused"})


class Launch:
    """One try to create and start a container, in a thread.

    `made` is None while it is unknown whether the engine has made the container: before, and after an answer that never
    came. `abandon` may be called from another thread: the launch then ends at its next step.
    """

    def __init__(self, member_id: str, config: dict[str, Any]) -> None:
        self._member_id = member_id
        self._config = config
        self._abandoned = threading.Event()
        self.made: bool | None = None

    def abandon(self) -> None:
        """Go no step further."""
        self._abandoned.set()

    def __call__(self, client: EngineClient) -> str:
        """Create, start, and return the agent's `host:port`."""
        if self._abandoned.is_set():
            self.made = False
            raise EngineDown("the launch was given up")
        try:
            container = client.create(self._config, labels.container_name(self._member_id))
        except APIError:
            self.made = False
            raise
        self.made = True
        if self._abandoned.is_set():
            raise EngineDown("the launch was given up")
        client.start(container)
        return _running_address(client, container)


def _running_address(client: EngineClient, container: str) -> str:
    found = client.inspect_container(container)
    address = _address(found["NetworkSettings"])
    if not found["State"]["Running"] or not address:
        code = found["State"].get("ExitCode")
        raise EngineConflict(f"the container ended right after its start, with exit code {code}")
    return address


def _address(network_settings: dict[str, Any]) -> str:
    """The agent's address from what the engine says of a container's networks; empty when it has none."""
    for network in (network_settings.get("Networks") or {}).values():
        if network and network.get("IPAddress"):
            return f"{network['IPAddress']}:{AGENT_PORT}"
    return ""


def list_members(client: EngineClient, server_id: str) -> list[MemberRef]:
    """List the containers of this server's members. Only ended ones cost a further call, for their exit code."""
    found = client.containers(all=True, filters={"label": f"{labels.SERVER}={server_id}"})
    refs = (_member_ref(client, one) for one in found if (one.get("Labels") or {}).get(labels.MEMBER))
    return [ref for ref in refs if ref is not None]


def _member_ref(client: EngineClient, found: dict[str, Any]) -> MemberRef | None:
    member_id = found["Labels"][labels.MEMBER]
    state = found["State"]
    if state in _ENDED:
        try:
            exit_code = int(client.inspect_container(found["Id"])["State"]["ExitCode"])
        except APIError as error:
            if status(error) == 404:  # Removed since it was listed.
                return None
            raise
        return MemberRef(member_id, running=False, address="", exit_code=exit_code)
    running = state in _RUNNING
    return MemberRef(member_id, running, _address(found.get("NetworkSettings") or {}) if running else "")


def list_containers(client: EngineClient, server_id: str) -> list[str]:
    """The engine's ids of all containers of this server, members or not."""
    return [one["Id"] for one in client.containers(all=True, filters={"label": f"{labels.SERVER}={server_id}"})]


def remove_member(client: EngineClient, server_id: str, member_id: str, grace_secs: int) -> bool:
    """Remove a member's container and its anonymous volumes; returns whether there was one of ours."""
    try:
        found = client.inspect_container(labels.container_name(member_id))
    except APIError as error:
        if status(error) == 404:
            return False
        raise
    if not labels.is_ours(found["Config"].get("Labels"), server_id, member_id):
        return False
    if grace_secs and found["State"]["Running"] and not found["State"]["Paused"]:
        _stop(client, found["Id"], grace_secs)
    return remove_container(client, found["Id"])


def _stop(client: EngineClient, container: str, grace_secs: int) -> None:
    try:
        client.stop(container, timeout=grace_secs)
    except APIError as error:
        if status(error) != 404:
            raise


def remove_container(client: EngineClient, container: str) -> bool:
    """Remove a container by force, whatever its state, and return when it is gone; returns whether it was there."""
    try:
        client.remove_container(container, v=True, force=True)
    except APIError as error:
        if status(error) == 404:
            return False
        if status(error) != 409:
            raise
        _wait_removed(client, container)  # Somebody else is removing it.
    return True


def _wait_removed(client: EngineClient, container: str) -> None:
    try:
        client.wait(container, timeout=int(client.timeout), condition="removed")
    except APIError as error:
        if status(error) != 404:
            raise
