"""Waiting until a member is ready for use: its readiness command succeeds."""

import asyncio

from sandpool_server.domain.errors import FailureReason, LaunchFailed, SandpoolError
from sandpool_server.domain.model import Command, CommandResult, ContainerSpec
from sandpool_server.ports import Agents

_SHOWN = 200
"""How much of a failing command's output is repeated to people, in characters."""


async def wait_until_ready(agents: Agents, member_id: str, address: str, spec: ContainerSpec) -> None:
    """Return when the spec's readiness command, if any, has succeeded in the member.

    Raises:
        LaunchFailed: (NOT_READY) it failed as often as the spec allows.
    """
    if not spec.readiness_command:
        return
    command = Command(timeout_secs=spec.readiness_timeout_secs, argv=spec.readiness_command)
    why = ""
    for attempt in range(spec.readiness_retries):
        if attempt:
            await asyncio.sleep(spec.readiness_interval_secs)
        try:
            result = await agents.run(member_id, address, command)
        except SandpoolError as error:
            why = error.message
            continue
        if result.exit_code == 0:
            return
        why = _how_it_failed(result)
    raise LaunchFailed(
        FailureReason.NOT_READY, f"readiness_command did not succeed in {spec.readiness_retries} tries; the last: {why}"
    )


def _how_it_failed(result: CommandResult) -> str:
    ended = f"signal {result.signal}" if result.exit_code is None else f"exit code {result.exit_code}"
    printed = (result.stderr or result.stdout).decode(errors="replace").strip()[-_SHOWN:]
    return f"{result.reason} with {ended}" + (f": {printed}" if printed else "")
