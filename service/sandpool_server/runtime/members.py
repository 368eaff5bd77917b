"""Blocking calls that make, list, measure and remove members' containers; lanes run them."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from docker.errors import APIError

from sandpool_server.ports import MemberRef
from sandpool_server.runtime import labels
from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.container import VolumePlace
from sandpool_server.runtime.failures import EngineConflict, EngineDown, status
from sandpool_server.runtime.routes import Reach
from sandpool_server.runtime.volumes import Volumes

_ENDED = frozenset({"exited", "dead"})
_RUNNING = frozenset({"running", "paused"})


class Launch:
    """One try to create and start a container, in a thread.

    `made` is None while it is unknown whether the engine has made the container: before, and after an answer that never
    came. `abandon` may be called from another thread: the launch then ends at its next step.
    """

    def __init__(
        self,
        member_id: str,
        image: str,
        volumes: Volumes,
        config: Callable[[Iterable[VolumePlace]], dict[str, Any]],
        reach: Reach,
    ) -> None:
        """`config` gives the create request from the volumes that the image wants."""
        self._member_id = member_id
        self._image = image
        self._volumes = volumes
        self._config = config
        self._reach = reach
        self._abandoned = threading.Event()
        self.made: bool | None = None

    def abandon(self) -> None:
        """Go no step further."""
        self._abandoned.set()

    def __call__(self, client: EngineClient) -> str:
        """Create, start, and return the agent's `host:port`."""
        try:
            if self._abandoned.is_set():
                raise EngineDown("the launch was given up")
            config = self._config(self._volumes.places(client, client.image(self._image)))
        except BaseException:
            self.made = False
            raise
        self._reach.publish(config)
        try:
            container = client.create(config, labels.container_name(self._member_id))
        except APIError:
            self.made = False
            raise
        self.made = True
        if self._abandoned.is_set():
            raise EngineDown("the launch was given up")
        client.start(container)
        return _running_address(client, container, self._reach)


def _running_address(client: EngineClient, container: str, reach: Reach) -> str:
    found = client.inspect_container(container)
    address = reach.inspected(found["NetworkSettings"])
    if not found["State"]["Running"] or not address:
        code = found["State"].get("ExitCode")
        raise EngineConflict(f"the container ended right after its start, with exit code {code}")
    return address


def list_members(client: EngineClient, server_id: str, reach: Reach) -> list[MemberRef]:
    """List the containers of this server's members. Only ended ones cost a further call, for their exit code."""
    found = client.containers(all=True, filters={"label": f"{labels.SERVER}={server_id}"})
    refs = (_member_ref(client, one, reach) for one in found if (one.get("Labels") or {}).get(labels.MEMBER))
    return [ref for ref in refs if ref is not None]


def measure_members(client: EngineClient, server_id: str) -> dict[str, int]:
    """Bytes that each running member has written to its container's own file system, by member id.

    One call. On overlay2 the engine adds up the files of each container's upper layer: 6 ms for 24 fresh containers,
    70 ms when they have written 16,000 files.
    """
    label = [f"{labels.SERVER}={server_id}", labels.MEMBER]
    found = client.containers(size=True, filters={"label": label})
    return {one["Labels"][labels.MEMBER]: int(one.get("SizeRw") or 0) for one in found}


def _member_ref(client: EngineClient, found: dict[str, Any], reach: Reach) -> MemberRef | None:
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
    return MemberRef(member_id, running, reach.listed(found) if running else "", paused=state == "paused")


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
