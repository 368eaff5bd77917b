"""Agents in memory for the containers of a `FakeRuntime`. They respond immediately; a variant fails in a specified way.

FakeAgents     work correctly
SilentAgents   selected agents never respond: a call ends when its deadline expires
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, CommandResult, ExitReason
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.interfaces import ImageConfig
from tests.support.fake_runtime import FakeRuntime

Handler = Callable[[str, Command], Awaitable[CommandResult]]
"""Runs a command of an instance."""


def succeeded(stdout: bytes = b"", exit_code: int = 0) -> CommandResult:
    """Return the result of a command that exited."""
    return CommandResult(
        stdout=stdout,
        stderr=b"",
        exit_code=exit_code,
        signal=None,
        reason=ExitReason.EXITED,
        duration_secs=0.001,
    )


async def echo(instance_id: str, command: Command) -> CommandResult:
    """Return the command itself as output."""
    return succeeded((command.shell or " ".join(command.argv)).encode())


class FakeAgents:
    """Implements `interfaces.Agents`. An agent responds while its container runs and is not in `unresponsive`.

    `handler` runs commands. `commands`, `configured`, `activated`, `probed` and `forgotten` record the calls in order.
    `entrypoint_fails` makes every start of an entrypoint fail; `bad_entrypoints` does so for the named programs.
    """

    def __init__(self, runtime: FakeRuntime, handler: Handler = echo) -> None:
        self.runtime = runtime
        self.handler = handler
        self.unresponsive: set[str] = set()
        self.all_unresponsive = False
        self.entrypoint_fails = False
        self.bad_entrypoints: set[str] = set()
        self.commands: list[tuple[str, Command]] = []
        self.configured: dict[str, tuple[ImageConfig, ContainerSpec]] = {}
        self.activated: list[str] = []
        self.probed: list[str] = []
        self.forgotten: list[str] = []
        self.closed = False
        self._env: dict[str, dict[str, str]] = {}
        self._entrypoints: dict[str, tuple[str, ...]] = {}

    # --- for tests ----------------------------------------------------------------------------------------------------

    def env_of(self, instance_id: str) -> dict[str, str]:
        """Return the environment of a command: of the image, overridden by the spec, overridden by the sandbox."""
        image, _ = self.configured[instance_id]
        return {**image.env, **self._env[instance_id]}

    def entrypoint_started(self, instance_id: str) -> bool:
        """Return whether the entrypoint of the instance has been started."""
        return instance_id in self._entrypoints

    # --- interface ----------------------------------------------------------------------------------------------------

    def token_sha256(self, instance_id: str) -> str:
        return hashlib.sha256(f"token of {instance_id}".encode()).hexdigest()

    async def wait_ready(self, instance_id: str, address: str, timeout_secs: float) -> None:
        if not await self._responds(instance_id, address, timeout_secs):
            raise LaunchFailed(FailureReason.READINESS_TIMEOUT, "the container's agent was not ready")

    async def configure(self, instance_id: str, address: str, image: ImageConfig, spec: ContainerSpec) -> None:
        if not await self._responds(instance_id, address):
            raise LaunchFailed(
                FailureReason.START_FAILED, "the container could not be configured: the agent does not respond"
            )
        self.configured[instance_id] = (image, spec)
        self._env.setdefault(instance_id, {}).update(spec.env)
        if spec.entrypoint and not spec.secret_names:
            self._start(instance_id, spec.entrypoint)

    async def activate(
        self, instance_id: str, address: str, env: Mapping[str, str], entrypoint: tuple[str, ...] = ()
    ) -> None:
        self.activated.append(instance_id)
        if not await self._responds(instance_id, address):
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox does not respond")
        self._env.setdefault(instance_id, {}).update(env)
        if entrypoint:
            self._start(instance_id, entrypoint)

    async def probe(self, instance_id: str, address: str) -> None:
        self.probed.append(instance_id)
        if not await self._responds(instance_id, address):
            raise Unavailable("SANDBOX_UNREACHABLE", "the agent of the sandbox does not respond")

    async def run(self, instance_id: str, address: str, command: Command) -> CommandResult:
        self.commands.append((instance_id, command))
        if not await self._responds(instance_id, address, command.timeout_secs):
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox cannot be reached; it may be terminating")
        return await self.handler(instance_id, command)

    def forget(self, instance_id: str) -> None:
        self.forgotten.append(instance_id)

    async def close(self) -> None:
        self.closed = True

    def _start(self, instance_id: str, entrypoint: tuple[str, ...]) -> None:
        if self.entrypoint_fails or entrypoint[0] in self.bad_entrypoints:
            raise LaunchFailed(FailureReason.START_FAILED, "the entrypoint could not be started: broken on purpose")
        started = self._entrypoints.setdefault(instance_id, entrypoint)
        if started != entrypoint:
            raise LaunchFailed(FailureReason.START_FAILED, "another entrypoint has been started")

    async def _responds(self, instance_id: str, address: str, deadline_secs: float = 2.0) -> bool:
        """Return whether the agent responds. A variant may use the whole deadline to return False."""
        await asyncio.sleep(0)
        container = self.runtime.containers.get(instance_id)
        known = container is not None and container.running and container.address == address
        expected = container is not None and container.token_sha256 == self.token_sha256(instance_id)
        return known and expected and not self.all_unresponsive and instance_id not in self.unresponsive


class SilentAgents(FakeAgents):
    """Agents of instances in `silent` accept every call and never respond, so that callers wait for their deadlines.

    `deadline_secs` limits the wait, as the deadlines of real agents do; `waiting` counts the waiting calls.
    """

    def __init__(self, runtime: FakeRuntime, handler: Handler = echo, deadline_secs: float = 2.0) -> None:
        super().__init__(runtime, handler)
        self.deadline_secs = deadline_secs
        self.silent: set[str] = set()
        self.waiting = 0

    async def _responds(self, instance_id: str, address: str, deadline_secs: float = 2.0) -> bool:
        if instance_id not in self.silent:
            return await super()._responds(instance_id, address, deadline_secs)
        self.waiting += 1
        try:
            await asyncio.sleep(min(deadline_secs, self.deadline_secs))
        finally:
            self.waiting -= 1
        return False
