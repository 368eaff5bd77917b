"""Readiness probes against a scripted agent."""

from collections.abc import Iterator
from typing import Any

import pytest

from sandpool_server.control.readiness import wait_until_ready
from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, CommandResult, ExitReason
from sandpool_server.domain.spec import ContainerSpec, ReadinessProbe

SPEC = ContainerSpec("image", readiness_probe=ReadinessProbe(("check", "it"), 0.0, 3.0, 3))


class ScriptedAgents:
    """Returns the next exit code of a script for each command, or raises the next error."""

    def __init__(self, *script: int | Exception) -> None:
        self._script: Iterator[int | Exception] = iter(script)
        self.commands: list[Command] = []

    async def run(self, instance_id: str, address: str, command: Command) -> CommandResult:
        self.commands.append(command)
        outcome = next(self._script)
        if isinstance(outcome, Exception):
            raise outcome
        return CommandResult(b"out", b"no module named x\n", outcome, None, ExitReason.EXITED, 0.1)


async def wait(agents: Any, spec: ContainerSpec = SPEC) -> None:
    await wait_until_ready(agents, "sbx-1", "host:1", spec)


async def test_runs_nothing_without_readiness_probe() -> None:
    agents = ScriptedAgents()
    await wait(agents, ContainerSpec("image"))
    assert agents.commands == []


async def test_repeats_command_until_it_succeeds() -> None:
    agents = ScriptedAgents(1, Unavailable("SANDBOX_UNREACHABLE", "no response"), 0)
    await wait(agents)
    assert agents.commands == [Command(3, argv=("check", "it"))] * 3


async def test_reports_last_failure_after_failure_threshold() -> None:
    with pytest.raises(LaunchFailed, match="failed 3 times; last attempt: exited with exit code 7: no module") as e:
        await wait(ScriptedAgents(1, 2, 7))
    assert e.value.reason is FailureReason.READINESS_TIMEOUT
