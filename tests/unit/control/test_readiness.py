"""Readiness commands, against an agent that answers by a script."""

from collections.abc import Iterator
from typing import Any

import pytest

from sandpool_server.control.readiness import wait_until_ready
from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, CommandEndReason, CommandResult, ContainerSpec

SPEC = ContainerSpec(
    "image", readiness_command=("check", "it"), readiness_interval_secs=0, readiness_timeout_secs=3, readiness_retries=3
)


class ScriptedAgents:
    """Answers each command with the next of a script: an exit code, or an error."""

    def __init__(self, *script: int | Exception) -> None:
        self._script: Iterator[int | Exception] = iter(script)
        self.commands: list[Command] = []

    async def run(self, member_id: str, address: str, command: Command) -> CommandResult:
        self.commands.append(command)
        answer = next(self._script)
        if isinstance(answer, Exception):
            raise answer
        return CommandResult(b"out", b"no module named x\n", answer, None, CommandEndReason.EXITED, 0.1)


async def wait(agents: Any, spec: ContainerSpec = SPEC) -> None:
    await wait_until_ready(agents, "sbx-1", "host:1", spec)


async def test_without_a_command_nothing_is_run() -> None:
    agents = ScriptedAgents()
    await wait(agents, ContainerSpec("image"))
    assert agents.commands == []


async def test_it_is_tried_until_it_succeeds() -> None:
    agents = ScriptedAgents(1, Unavailable("SANDBOX_UNREACHABLE", "no answer"), 0)
    await wait(agents)
    assert agents.commands == [Command(3, argv=("check", "it"))] * 3


async def test_after_the_last_try_it_is_told_how_it_failed() -> None:
    with pytest.raises(
        LaunchFailed, match="did not succeed in 3 tries; the last: exited with exit code 7: no module"
    ) as e:
        await wait(ScriptedAgents(1, 2, 7))
    assert e.value.reason is FailureReason.NOT_READY
