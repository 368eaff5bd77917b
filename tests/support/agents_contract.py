"""What every implementation of `ports.Agents` must do; run against the fake and against real agents in containers.

A subclass gives the fixture `place`.
"""

import asyncio
import time
from typing import Protocol

import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import ContainerSpec
from sandpool_server.ports import Agents, ImageConfig

MISSING_PROGRAM = "no-such-program"
SLEEPER = ("sleep", "4712")
SILENCE_SECS = 2.5
"""How long a call to an agent that does not answer may take."""


class Place(Protocol):
    """A container that has just been launched, and what a test may see and do past the code under test."""

    agents: Agents
    member_id: str
    address: str
    image: ImageConfig

    async def env(self) -> dict[str, str]:
        """What a command sees."""
        ...

    async def entrypoint_runs(self) -> bool:
        """Whether `SLEEPER` runs."""
        ...

    async def silence(self) -> None:
        """Make the agent take calls and answer none."""
        ...

    async def revive(self) -> None:
        """Make it answer again."""
        ...

    async def end(self) -> None:
        """End the container."""
        ...


def spec(**fields: object) -> ContainerSpec:
    """A specification; its image is of no matter to agents."""
    return ContainerSpec("busybox:latest", **fields)  # type: ignore[arg-type]


async def configure(place: Place, **fields: object) -> None:
    await place.agents.wait_ready(place.member_id, place.address, 20)
    await place.agents.configure(place.member_id, place.address, place.image, spec(**fields))


async def admit(place: Place, env: dict[str, str] | None = None, entrypoint: tuple[str, ...] = ()) -> None:
    await place.agents.admit(place.member_id, place.address, env or {}, entrypoint)


class AgentsContract:
    """The tests."""

    async def test_an_owners_environment_lies_over_the_specs_and_that_over_the_images(self, place: Place) -> None:
        base = place.image.env["PATH"]
        await configure(place, env=(("A", "spec"), ("B", "spec"), ("PATH", f"/spec:{base}")))
        before = await place.env()
        assert (before["A"], before["B"], before["PATH"]) == ("spec", "spec", f"/spec:{base}")
        await admit(place, {"B": "own", "C": "own"})
        after = await place.env()
        assert (after["A"], after["B"], after["C"]) == ("spec", "own", "own")

    async def test_admitting_again_changes_nothing(self, place: Place) -> None:
        await configure(place)
        for _ in range(2):
            await admit(place, {"A": "1"}, SLEEPER)
        assert (await place.env())["A"] == "1"
        assert await place.entrypoint_runs()

    async def test_an_entrypoint_starts_when_configured(self, place: Place) -> None:
        await configure(place, entrypoint=SLEEPER)
        assert await place.entrypoint_runs()
        await admit(place, {"A": "1"})

    async def test_an_entrypoint_with_secrets_waits_for_its_owner(self, place: Place) -> None:
        await configure(place, entrypoint=SLEEPER, secret_names=("KEY",))
        assert not await place.entrypoint_runs()
        await admit(place, {"KEY": "hidden"}, SLEEPER)
        assert await place.entrypoint_runs()

    async def test_an_entrypoint_that_cannot_start_is_told_of(self, place: Place) -> None:
        with pytest.raises(LaunchFailed) as failed:
            await configure(place, entrypoint=(MISSING_PROGRAM,))
        assert failed.value.reason is FailureReason.START_FAILED
        with pytest.raises(LaunchFailed) as failed:
            await admit(place, {}, (MISSING_PROGRAM,))
        assert failed.value.reason is FailureReason.START_FAILED
        assert not await place.entrypoint_runs()

    async def test_an_agent_answers_probes_until_its_container_ends(self, place: Place) -> None:
        await configure(place)
        await place.agents.probe(place.member_id, place.address)
        await place.end()
        await self._unavailable(place)

    async def test_a_silent_agent_is_given_up_and_one_that_is_back_answers(self, place: Place) -> None:
        await configure(place)
        await place.silence()
        await self._unavailable(place)
        await place.revive()
        async with asyncio.timeout(1):
            await place.agents.probe(place.member_id, place.address)
            await admit(place, {"A": "back"})
        assert (await place.env())["A"] == "back"

    @staticmethod
    async def _unavailable(place: Place) -> None:
        for call in (place.agents.probe(place.member_id, place.address), admit(place, {"A": "b"}, SLEEPER)):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await call
            assert time.monotonic() - began < SILENCE_SECS
