"""The agents inside members."""

from collections.abc import Mapping
from typing import Protocol

from sandpool_server.domain.model import Command, CommandResult, ContainerSpec
from sandpool_server.ports.runtime import ImageConfig


class Agents(Protocol):
    """Speaks to the agents inside members. What comes back is hostile input: sizes and values are checked."""

    def token_sha256(self, member_id: str) -> str:
        """The hexadecimal SHA-256 of the token that this member's agent accepts."""
        ...

    async def wait_ready(self, member_id: str, address: str, timeout_secs: float) -> None:
        """Return when the agent answers; raises `LaunchFailed` (`NOT_READY`) after `timeout_secs`."""
        ...

    async def configure(self, member_id: str, address: str, image: ImageConfig, spec: ContainerSpec) -> None:
        """Tell the agent the image's defaults, the spec's `env` and the largest file that may be written.

        Also starts the entrypoint, unless the spec names secrets: then it starts at the claim. Raises `LaunchFailed`
        (`START_FAILED`).
        """
        ...

    async def admit(
        self, member_id: str, address: str, env: Mapping[str, str], entrypoint: tuple[str, ...] = ()
    ) -> None:
        """Hand a member over to its owner: see that it answers, add its own environment, start an entrypoint if given.

        Idempotent. Raises `Unavailable` when it does not answer within a second or two, `LaunchFailed`
        (`START_FAILED`) when the entrypoint cannot be started.
        """
        ...

    async def probe(self, member_id: str, address: str) -> None:
        """Return if the agent answers within a second or two, else raise `Unavailable`. Counts as no activity."""
        ...

    async def run(self, member_id: str, address: str, command: Command) -> CommandResult:
        """Run a command. Cancelling kills it. Raises `FailedPrecondition`, `InvalidArgument`, `Exhausted`, and
        `Unavailable` when the agent does not answer.
        """
        ...

    def forget(self, member_id: str) -> None:
        """Close what is kept open to this member's agent."""
        ...

    async def close(self) -> None:
        """Close everything."""
        ...
