"""Agents in memory, for the containers of a `FakeRuntime`."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, CommandEndReason, CommandResult
from sandpool_server.ports import ImageConfig
from tests.support.fake_runtime import FakeRuntime

Handler = Callable[[str, Command], Awaitable[CommandResult]]
"""Answers a command of a member."""


def succeeded(stdout: bytes = b"", exit_code: int = 0) -> CommandResult:
    """A command that ended by itself."""
    return CommandResult(
        stdout=stdout,
        stderr=b"",
        exit_code=exit_code,
        signal=None,
        reason=CommandEndReason.EXITED,
        duration_secs=0.001,
    )


async def echo(member_id: str, command: Command) -> CommandResult:
    """Answer with the command itself, as text."""
    return succeeded((command.shell or " ".join(command.argv)).encode())


class FakeAgents:
    """Implements `ports.Agents`. An agent answers while its container runs and is not in `mute`.

    `handler` answers commands; `commands`, `configured` and `forgotten` say what was asked. `entrypoint_fails` makes
    `configure` fail for members with an entrypoint.
    """

    def __init__(self, runtime: FakeRuntime, handler: Handler = echo) -> None:
        self.runtime = runtime
        self.handler = handler
        self.mute: set[str] = set()
        self.all_mute = False
        self.entrypoint_fails = False
        self.commands: list[tuple[str, Command]] = []
        self.configured: dict[str, tuple[ImageConfig, tuple[str, ...]]] = {}
        self.forgotten: list[str] = []
        self.closed = False

    def token_sha256(self, member_id: str) -> str:
        return hashlib.sha256(f"token of {member_id}".encode()).hexdigest()

    async def wait_ready(self, member_id: str, address: str, timeout_secs: float) -> None:
        await asyncio.sleep(0)
        if not self._answers(member_id, address):
            raise LaunchFailed(FailureReason.NOT_READY, "the container's agent was not ready")

    async def configure(self, member_id: str, address: str, image: ImageConfig, entrypoint: tuple[str, ...]) -> None:
        await asyncio.sleep(0)
        if not self._answers(member_id, address):
            raise LaunchFailed(FailureReason.START_FAILED, "the container could not be set up: it does not answer")
        if entrypoint and self.entrypoint_fails:
            raise LaunchFailed(FailureReason.START_FAILED, "the entrypoint could not be started: broken on purpose")
        self.configured[member_id] = (image, entrypoint)

    async def run(self, member_id: str, address: str, command: Command) -> CommandResult:
        self.commands.append((member_id, command))
        if not self._answers(member_id, address):
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox cannot be reached; it may be ending")
        return await self.handler(member_id, command)

    def forget(self, member_id: str) -> None:
        self.forgotten.append(member_id)

    async def close(self) -> None:
        self.closed = True

    def _answers(self, member_id: str, address: str) -> bool:
        container = self.runtime.containers.get(member_id)
        known = container is not None and container.running and container.address == address
        expected = container is not None and container.token_sha256 == self.token_sha256(member_id)
        return known and expected and not self.all_mute and member_id not in self.mute
