"""The interface to the agents in instances."""

from collections.abc import Mapping
from typing import Protocol

from sandpool_server.domain.model import Command, CommandResult
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.interfaces.runtime import ImageConfig


class Agents(Protocol):
    """Calls the agents in instances.

    The responses of agents are untrusted input. Implementations check their sizes and values.
    """

    def token_sha256(self, instance_id: str) -> str:
        """Return the hexadecimal SHA-256 of the token that the agent of the instance accepts."""
        ...

    async def wait_ready(self, instance_id: str, address: str, timeout_secs: float) -> None:
        """Return when the agent responds.

        Raises:
            LaunchFailed: (READINESS_TIMEOUT) the agent does not respond within `timeout_secs`.
        """
        ...

    async def configure(self, instance_id: str, address: str, image: ImageConfig, spec: ContainerSpec) -> None:
        """Pass the defaults of the image, the `env` of the specification and the maximum file size to the agent.

        The agent also starts the entrypoint. If the specification has secrets, the entrypoint starts later, in
        `activate`.

        Raises:
            LaunchFailed: (START_FAILED) the agent does not respond, or the entrypoint does not start.
        """
        ...

    async def activate(
        self, instance_id: str, address: str, env: Mapping[str, str], entrypoint: tuple[str, ...] = ()
    ) -> None:
        """Check that the agent responds, add `env` to the environment and start `entrypoint` if it is not empty.

        The method is idempotent.

        Raises:
            Unavailable: the agent does not respond within 1 to 2 seconds.
            LaunchFailed: (START_FAILED) the entrypoint does not start.
        """
        ...

    async def probe(self, instance_id: str, address: str) -> None:
        """Check that the agent responds. The call does not count as activity in the sandbox.

        Raises:
            Unavailable: the agent does not respond within 1 to 2 seconds.
        """
        ...

    async def run(self, instance_id: str, address: str, command: Command) -> CommandResult:
        """Run a command and return its result. If the caller is cancelled, the agent kills the command.

        Raises:
            FailedPrecondition, InvalidArgument, Exhausted: the agent refuses the command.
            Unavailable: the agent does not respond.
        """
        ...

    def forget(self, instance_id: str) -> None:
        """Close the connections to the agent of the instance."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
