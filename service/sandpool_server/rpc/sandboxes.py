"""Implementation of SandboxService on the use cases."""

from collections.abc import AsyncIterator
from functools import partial

from sandpool.v1 import sandbox_service_pb2 as messages
from sandpool_server.domain.errors import FieldViolation, InvalidArgument
from sandpool_server.gen.v1 import sandbox_service_pb2_grpc as stubs
from sandpool_server.interfaces import Clock
from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.converters import run_command_response, sandbox_message, sandbox_messages
from sandpool_server.rpc.drain import releasing
from sandpool_server.rpc.fingerprints import fingerprint_of
from sandpool_server.rpc.paging import page_of
from sandpool_server.rpc.requests import command, new_sandbox, sandbox_changes, sandbox_filter
from sandpool_server.usecases.sandboxes import Sandboxes


class SandboxServicer(stubs.SandboxServiceServicer):
    """Implements SandboxService. `Calls` validates requests and converts domain errors to statuses."""

    def __init__(self, sandboxes: Sandboxes, clock: Clock) -> None:
        self._sandboxes = sandboxes
        self._clock = clock

    async def CreateSandbox(
        self, request: messages.CreateSandboxRequest, context: Context
    ) -> messages.CreateSandboxResponse:
        """Create a sandbox. This is the method for which latency matters most."""
        received = self._clock.monotonic()
        fingerprint = fingerprint_of(request, request.request_id)
        deadline = _deadline(received, context)
        instance = await self._sandboxes.create(
            new_sandbox(request), request.request_id, fingerprint, received, deadline
        )
        return messages.CreateSandboxResponse(sandbox=sandbox_message(instance))

    async def BatchCreateSandboxes(
        self, request: messages.BatchCreateSandboxesRequest, context: Context
    ) -> messages.BatchCreateSandboxesResponse:
        """Create several identical sandboxes."""
        received = self._clock.monotonic()
        fingerprint = fingerprint_of(request, request.request_id)
        try:
            instances = await self._sandboxes.create_batch(
                new_sandbox(request.sandbox),
                request.count,
                request.request_id,
                fingerprint,
                received,
                _deadline(received, context),
            )
        except InvalidArgument as error:
            raise _in_batch(error) from error
        return messages.BatchCreateSandboxesResponse(sandboxes=sandbox_messages(instances))

    async def GetSandbox(self, request: messages.GetSandboxRequest, context: Context) -> messages.GetSandboxResponse:
        """Return a sandbox."""
        return messages.GetSandboxResponse(sandbox=sandbox_message(await self._sandboxes.get(request.sandbox_id)))

    async def ListSandboxes(
        self, request: messages.ListSandboxesRequest, context: Context
    ) -> messages.ListSandboxesResponse:
        """List sandboxes, oldest first."""
        read = partial(self._sandboxes.list, sandbox_filter(request))
        instances, token = await page_of(request).fetch(read, lambda instance: instance.id)
        return messages.ListSandboxesResponse(sandboxes=sandbox_messages(instances), next_page_token=token)

    async def UpdateSandbox(
        self, request: messages.UpdateSandboxRequest, context: Context
    ) -> messages.UpdateSandboxResponse:
        """Update a sandbox."""
        fingerprint = fingerprint_of(request, request.request_id)
        instance = await self._sandboxes.update(
            request.sandbox_id, sandbox_changes(request), request.etag, request.request_id, fingerprint
        )
        return messages.UpdateSandboxResponse(sandbox=sandbox_message(instance))

    async def DeleteSandbox(
        self, request: messages.DeleteSandboxRequest, context: Context
    ) -> messages.DeleteSandboxResponse:
        """Terminate a sandbox."""
        fingerprint = fingerprint_of(request, request.request_id)
        instance = await self._sandboxes.delete(request.sandbox_id, request.request_id, fingerprint)
        return messages.DeleteSandboxResponse(sandbox=sandbox_message(instance))

    async def WatchSandbox(
        self, request: messages.WatchSandboxRequest, context: Context
    ) -> AsyncIterator[messages.WatchSandboxResponse]:
        """Stream the current sandbox and its changes."""
        async with releasing(self._sandboxes.watch(request.sandbox_id)) as states:
            async for instance in states:
                yield messages.WatchSandboxResponse(sandbox=sandbox_message(instance))

    async def RunCommand(self, request: messages.RunCommandRequest, context: Context) -> messages.RunCommandResponse:
        """Run a command and return its result."""
        return run_command_response(await self._sandboxes.run(request.sandbox_id, command(request)))


def _deadline(received: float, context: Context) -> float | None:
    """Return the deadline of the caller on the scale of `received`, the time of the call; None if it has none."""
    remaining = context.time_remaining()
    return None if remaining is None else received + remaining


def _in_batch(error: InvalidArgument) -> InvalidArgument:
    """Return the error with field paths of a batch. The use case returns the paths of a single sandbox."""
    own = messages.BatchCreateSandboxesRequest.DESCRIPTOR.fields_by_name
    return InvalidArgument(
        *(v if v.field in own else FieldViolation(f"sandbox.{v.field}", v.description) for v in error.violations),
        reason=error.reason,
    )
