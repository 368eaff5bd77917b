"""The interface to the container engine."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sandpool_server.domain.model import DiskEnforcement, Instance, PullProgress
from sandpool_server.domain.spec import PullPolicy


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The defaults that an image defines for its processes. `digest` is the engine's id of the image."""

    digest: str
    env: Mapping[str, str]
    working_dir: str
    user: str


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """A container of this server on the engine.

    `address` is `host:port` of the agent; empty if the container does not run. A paused container counts as running.
    """

    instance_id: str
    running: bool
    address: str
    exit_code: int | None = None
    paused: bool = False


class RuntimeEventKind(StrEnum):
    """The type of an event of a container of this server."""

    DIED = "died"
    OOM = "oom"
    REMOVED = "removed"
    PAUSED = "paused"
    KILLED = "killed"
    """A client of the engine killed the container or removed it by force. A DIED event follows."""
    RESYNC = "resync"
    """The stream of events was interrupted. The receiver must compare all containers with the database."""


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """An event. `instance_id` is empty for RESYNC. `exit_code` is set only for DIED, if it is known."""

    kind: RuntimeEventKind
    instance_id: str = ""
    exit_code: int | None = None


class Runtime(Protocol):
    """Creates and removes instances on a container engine. Changes only resources with the label of this server.

    `ensure_image` and `launch` raise `LaunchFailed` for errors of the engine; the other methods raise `Unavailable`.
    """

    async def prepare(self) -> None:
        """Create the shared resources of the instances (network, agent volume) if they do not exist.

        The method is idempotent, also after it was interrupted.
        """
        ...

    async def ping(self) -> None:
        """Check that the engine responds within about one second. Raises `Unavailable`."""
        ...

    async def ensure_image(self, image: str, policy: PullPolicy = PullPolicy.MISSING) -> ImageConfig:
        """Pull the image if the policy requires it and return its defaults.

        Concurrent calls for the same image share one pull.
        """
        ...

    def pulls(self) -> dict[str, PullProgress]:
        """Return the pulls in progress, by image.

        After each step of a pull, the runtime calls the `pull_changed` function of its constructor on the event loop.
        """
        ...

    @property
    def disk_enforcement(self) -> DiskEnforcement | None:
        """How disk limits are enforced on this engine; None before the first call of `prepare`."""
        ...

    async def disk_usage(self) -> dict[str, int]:
        """Return the bytes that each running instance has written to its file system, by id, with one engine call."""
        ...

    async def launch(self, instance: Instance, token_sha256: str) -> str:
        """Create and start the container of the instance with its limits and return `host:port` of the agent.

        On failure or cancellation the method removes the container.
        """
        ...

    async def remove(self, instance_id: str) -> None:
        """Remove the container of the instance by force, in any state. It is no error if it does not exist."""
        ...

    async def instances(self) -> list[InstanceRef]:
        """Return all containers with the label of this server, running or not."""
        ...

    def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Yield the events of the containers of this server, without end.

        The first event, and the first one after each interruption, is RESYNC.
        """
        ...

    async def purge(self) -> int:
        """Remove all containers and networks with the label of this server and return the number of containers."""
        ...

    async def close(self) -> None:
        """Close the connections to the engine. Containers keep running."""
        ...
