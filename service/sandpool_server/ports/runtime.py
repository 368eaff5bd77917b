"""The container engine."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sandpool_server.domain.model import DiskEnforcement, Member, PullPolicy, PullProgress


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of how to run things in it. `digest` is the engine's id of the image."""

    digest: str
    env: Mapping[str, str]
    working_dir: str
    user: str


@dataclass(frozen=True, slots=True)
class MemberRef:
    """A container of ours that the engine lists. `address` is the agent's `host:port`, empty when it does not run.

    One that is paused counts as running.
    """

    member_id: str
    running: bool
    address: str
    exit_code: int | None = None
    paused: bool = False


class RuntimeEventKind(StrEnum):
    """What happened to a container of ours."""

    DIED = "died"
    OOM = "oom"
    REMOVED = "removed"
    PAUSED = "paused"
    KILLED = "killed"
    """Somebody had the engine end it; DIED follows. Also before a removal by force."""
    RESYNC = "resync"
    """The stream of events was interrupted: compare everything."""


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """One event; `member_id` is empty for RESYNC. `exit_code` comes with DIED where known."""

    kind: RuntimeEventKind
    member_id: str = ""
    exit_code: int | None = None


class Runtime(Protocol):
    """Makes and removes members on an engine. Touches nothing that does not carry this server's label.

    Engine errors become `LaunchFailed` in `ensure_image` and `launch`, `Unavailable` elsewhere.
    """

    async def prepare(self) -> None:
        """Make what members share (network, agent volume) unless it is there. Idempotent, also after a kill."""
        ...

    async def ping(self) -> None:
        """Return if the engine answers within a second or so, else raise `Unavailable`."""
        ...

    async def ensure_image(self, image: str, policy: PullPolicy = PullPolicy.MISSING) -> ImageConfig:
        """Have the image on the engine, pulling it as the policy says; concurrent calls share one pull."""
        ...

    def pulls(self) -> dict[str, PullProgress]:
        """The pulls under way, by image. Each step calls, on the loop, the `pull_changed` the runtime was made with."""
        ...

    @property
    def disk_enforcement(self) -> DiskEnforcement | None:
        """Who enforces disk limits on this engine; None until `prepare` has found out."""
        ...

    async def disk_usage(self) -> dict[str, int]:
        """Bytes that each running member has written to its own file system, by member id. One engine call."""
        ...

    async def launch(self, member: Member, token_sha256: str) -> str:
        """Create and start the member's container with its limits; returns the agent's `host:port`.

        A failure, or cancellation, removes what was made.
        """
        ...

    async def remove(self, member_id: str) -> None:
        """Remove the member's container by force, whatever its state. No error if there is none."""
        ...

    async def members(self) -> list[MemberRef]:
        """All containers that carry this server's label, running or not."""
        ...

    def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Events of this server's containers for ever; begins with, and after each interruption yields, RESYNC."""
        ...

    async def purge(self) -> int:
        """Remove every container and network with this server's label; returns how many containers."""
        ...

    async def close(self) -> None:
        """Let go of the engine; containers stay."""
        ...
