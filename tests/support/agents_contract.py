"""Contract tests for implementations of `interfaces.Agents`: the fake, and real agents in containers.

A subclass provides the fixture `harness`.
"""

import asyncio
import time
from typing import Protocol

import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.interfaces import Agents, ImageConfig

MISSING_PROGRAM = "no-such-program"
SLEEPER = ("sleep", "4712")
MAX_UNRESPONSIVE_SECS = 2.5
"""The longest duration of a call to an agent that does not respond, in seconds."""


class AgentHarness(Protocol):
    """A new container, with direct access to its state for the tests."""

    agents: Agents
    instance_id: str
    address: str
    image: ImageConfig

    async def env(self) -> dict[str, str]:
        """Return the environment of a command."""
        ...

    async def entrypoint_runs(self) -> bool:
        """Return whether `SLEEPER` runs."""
        ...

    async def make_unresponsive(self) -> None:
        """Make the agent accept calls and respond to none."""
        ...

    async def revive(self) -> None:
        """Make the agent respond again."""
        ...

    async def end(self) -> None:
        """Stop the container."""
        ...


def spec(**fields: object) -> ContainerSpec:
    """Return a specification; agents ignore its image."""
    return ContainerSpec("busybox:latest", **fields)  # type: ignore[arg-type]


async def configure(harness: AgentHarness, **fields: object) -> None:
    await harness.agents.wait_ready(harness.instance_id, harness.address, 20)
    await harness.agents.configure(harness.instance_id, harness.address, harness.image, spec(**fields))


async def activate(harness: AgentHarness, env: dict[str, str] | None = None, entrypoint: tuple[str, ...] = ()) -> None:
    await harness.agents.activate(harness.instance_id, harness.address, env or {}, entrypoint)


class AgentsContract:
    """The contract tests."""

    async def test_sandbox_environment_overrides_spec_and_spec_overrides_image(self, harness: AgentHarness) -> None:
        base = harness.image.env["PATH"]
        await configure(harness, env=(("A", "spec"), ("B", "spec"), ("PATH", f"/spec:{base}")))
        before = await harness.env()
        assert (before["A"], before["B"], before["PATH"]) == ("spec", "spec", f"/spec:{base}")
        await activate(harness, {"B": "own", "C": "own"})
        after = await harness.env()
        assert (after["A"], after["B"], after["C"]) == ("spec", "own", "own")

    async def test_repeated_activation_changes_nothing(self, harness: AgentHarness) -> None:
        await configure(harness)
        for _ in range(2):
            await activate(harness, {"A": "1"}, SLEEPER)
        assert (await harness.env())["A"] == "1"
        assert await harness.entrypoint_runs()

    async def test_configure_starts_entrypoint(self, harness: AgentHarness) -> None:
        await configure(harness, entrypoint=SLEEPER)
        assert await harness.entrypoint_runs()
        await activate(harness, {"A": "1"})

    async def test_entrypoint_with_secrets_starts_at_activation(self, harness: AgentHarness) -> None:
        await configure(harness, entrypoint=SLEEPER, secret_names=("KEY",))
        assert not await harness.entrypoint_runs()
        await activate(harness, {"KEY": "hidden"}, SLEEPER)
        assert await harness.entrypoint_runs()

    async def test_reports_entrypoint_that_cannot_start(self, harness: AgentHarness) -> None:
        with pytest.raises(LaunchFailed) as failed:
            await configure(harness, entrypoint=(MISSING_PROGRAM,))
        assert failed.value.reason is FailureReason.START_FAILED
        with pytest.raises(LaunchFailed) as failed:
            await activate(harness, {}, (MISSING_PROGRAM,))
        assert failed.value.reason is FailureReason.START_FAILED
        assert not await harness.entrypoint_runs()

    async def test_probe_succeeds_until_container_stops(self, harness: AgentHarness) -> None:
        await configure(harness)
        await harness.agents.probe(harness.instance_id, harness.address)
        await harness.end()
        await self._unavailable(harness)

    async def test_unresponsive_agent_is_unavailable_until_it_responds_again(self, harness: AgentHarness) -> None:
        await configure(harness)
        await harness.make_unresponsive()
        await self._unavailable(harness)
        await harness.revive()
        async with asyncio.timeout(1):
            await harness.agents.probe(harness.instance_id, harness.address)
            await activate(harness, {"A": "back"})
        assert (await harness.env())["A"] == "back"

    @staticmethod
    async def _unavailable(harness: AgentHarness) -> None:
        for call in (
            harness.agents.probe(harness.instance_id, harness.address),
            activate(harness, {"A": "b"}, SLEEPER),
        ):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await call
            assert time.monotonic() - began < MAX_UNRESPONSIVE_SECS
