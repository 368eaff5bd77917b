"""The readiness probe: waits until the readiness command of an instance succeeds."""

import asyncio

from sandpool_server.domain.errors import FailureReason, LaunchFailed, SandpoolError
from sandpool_server.domain.model import Command, CommandResult
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.interfaces import Agents

_SHOWN_CHARACTERS = 200
"""The number of characters of a failed command's output that the error message contains."""


async def wait_until_ready(agents: Agents, instance_id: str, address: str, spec: ContainerSpec) -> None:
    """Return when the readiness command of the specification, if any, has succeeded in the instance.

    Raises:
        LaunchFailed: (READINESS_TIMEOUT) the command failed `failure_threshold` times.
    """
    probe = spec.readiness_probe
    if probe is None:
        return
    command = Command(timeout_secs=probe.timeout_secs, argv=probe.command)
    failure = ""
    for attempt in range(probe.failure_threshold):
        if attempt:
            await asyncio.sleep(probe.interval_secs)
        try:
            result = await agents.run(instance_id, address, command)
        except SandpoolError as error:
            failure = error.message
            continue
        if result.exit_code == 0:
            return
        failure = _describe_failure(result)
    raise LaunchFailed(
        FailureReason.READINESS_TIMEOUT,
        f"readiness_probe failed {probe.failure_threshold} times; last attempt: {failure}",
    )


def _describe_failure(result: CommandResult) -> str:
    status = f"signal {result.signal}" if result.exit_code is None else f"exit code {result.exit_code}"
    output = (result.stderr or result.stdout).decode(errors="replace").strip()[-_SHOWN_CHARACTERS:]
    return f"{result.reason} with {status}" + (f": {output}" if output else "")
