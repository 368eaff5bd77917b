"""Agents in memory, for the containers of a `FakeRuntime`: instant, and in variants that fail in ways with names.

FakeAgents     do what they should
SilentAgents   chosen ones never answer: nothing comes back until a deadline has passed
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, CommandEndReason, CommandResult, ContainerSpec
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

    `handler` answers commands; `commands`, `configured`, `admitted`, `probed` and `forgotten` say what was asked, in
    order. `entrypoint_fails` makes `configure` and `admit` fail where they start an entrypoint, `bad_entrypoints` those
    of the programs in it.
    """

    def __init__(self, runtime: FakeRuntime, handler: Handler = echo) -> None:
        self.runtime = runtime
        self.handler = handler
        self.mute: set[str] = set()
        self.all_mute = False
        self.entrypoint_fails = False
        self.bad_entrypoints: set[str] = set()
        self.commands: list[tuple[str, Command]] = []
        self.configured: dict[str, tuple[ImageConfig, ContainerSpec]] = {}
        self.admitted: list[str] = []
        self.probed: list[str] = []
        self.forgotten: list[str] = []
        self.closed = False
        self._env: dict[str, dict[str, str]] = {}
        self._entrypoints: dict[str, tuple[str, ...]] = {}

    # --- what tests look at -------------------------------------------------------------------------------------------

    def env_of(self, member_id: str) -> dict[str, str]:
        """What a command run now would see: the image's environment, over it the spec's, over it the owner's."""
        image, _ = self.configured[member_id]
        return {**image.env, **self._env[member_id]}

    def entrypoint_started(self, member_id: str) -> bool:
        """Whether the member's entrypoint has been started."""
        return member_id in self._entrypoints

    # --- the port -----------------------------------------------------------------------------------------------------

    def token_sha256(self, member_id: str) -> str:
        return hashlib.sha256(f"token of {member_id}".encode()).hexdigest()

    async def wait_ready(self, member_id: str, address: str, timeout_secs: float) -> None:
        if not await self._answers(member_id, address, timeout_secs):
            raise LaunchFailed(FailureReason.NOT_READY, "the container's agent was not ready")

    async def configure(self, member_id: str, address: str, image: ImageConfig, spec: ContainerSpec) -> None:
        if not await self._answers(member_id, address):
            raise LaunchFailed(FailureReason.START_FAILED, "the container could not be set up: it does not answer")
        self.configured[member_id] = (image, spec)
        self._env.setdefault(member_id, {}).update(spec.env)
        if spec.entrypoint and not spec.secret_names:
            self._start(member_id, spec.entrypoint)

    async def admit(
        self, member_id: str, address: str, env: Mapping[str, str], entrypoint: tuple[str, ...] = ()
    ) -> None:
        self.admitted.append(member_id)
        if not await self._answers(member_id, address):
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox does not answer")
        self._env.setdefault(member_id, {}).update(env)
        if entrypoint:
            self._start(member_id, entrypoint)

    async def probe(self, member_id: str, address: str) -> None:
        self.probed.append(member_id)
        if not await self._answers(member_id, address):
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox's agent: it does not answer")

    async def run(self, member_id: str, address: str, command: Command) -> CommandResult:
        self.commands.append((member_id, command))
        if not await self._answers(member_id, address, command.timeout_secs):
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox cannot be reached; it may be ending")
        return await self.handler(member_id, command)

    def forget(self, member_id: str) -> None:
        self.forgotten.append(member_id)

    async def close(self) -> None:
        self.closed = True

    def _start(self, member_id: str, entrypoint: tuple[str, ...]) -> None:
        if self.entrypoint_fails or entrypoint[0] in self.bad_entrypoints:
            raise LaunchFailed(FailureReason.START_FAILED, "the entrypoint could not be started: broken on purpose")
        started = self._entrypoints.setdefault(member_id, entrypoint)
        if started != entrypoint:
            raise LaunchFailed(FailureReason.START_FAILED, "another entrypoint has been started")

    async def _answers(self, member_id: str, address: str, deadline_secs: float = 2.0) -> bool:
        """Whether the agent answers; a variant's hook may take up to the deadline to find out that it does not."""
        await asyncio.sleep(0)
        container = self.runtime.containers.get(member_id)
        known = container is not None and container.running and container.address == address
        expected = container is not None and container.token_sha256 == self.token_sha256(member_id)
        return known and expected and not self.all_mute and member_id not in self.mute


class SilentAgents(FakeAgents):
    """Agents of members in `silent` take every call and answer none, so that callers wait for their deadlines.

    `deadline_secs` bounds the wait, as the deadlines of the real ones do; `waiting` counts the calls that wait.
    """

    def __init__(self, runtime: FakeRuntime, handler: Handler = echo, deadline_secs: float = 2.0) -> None:
        super().__init__(runtime, handler)
        self.deadline_secs = deadline_secs
        self.silent: set[str] = set()
        self.waiting = 0

    async def _answers(self, member_id: str, address: str, deadline_secs: float = 2.0) -> bool:
        if member_id not in self.silent:
            return await super()._answers(member_id, address, deadline_secs)
        self.waiting += 1
        try:
            await asyncio.sleep(min(deadline_secs, self.deadline_secs))
        finally:
            self.waiting -= 1
        return False
