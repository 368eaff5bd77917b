"""The SandboxService: sandboxes of the contract to sandboxes of the use cases and back."""

from collections.abc import AsyncIterator
from functools import partial

from sandpool.v1 import sandbox_service_pb2 as messages
from sandpool.v1 import sandbox_service_pb2_grpc as stubs
from sandpool_server.domain.errors import FieldViolation, InvalidArgument
from sandpool_server.ports import Clock
from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.converters import run_command_answer, sandbox_message, sandbox_messages
from sandpool_server.rpc.drain import releasing
from sandpool_server.rpc.fingerprints import fingerprint_of
from sandpool_server.rpc.paging import page_of
from sandpool_server.rpc.requests import command, new_sandbox, sandbox_changes, sandbox_filter
from sandpool_server.usecases.sandboxes import Sandboxes


class SandboxServicer(stubs.SandboxServiceServicer):
    """Answers SandboxService. Requests are valid when they get here; domain errors become statuses in `Calls`."""

    def __init__(self, sandboxes: Sandboxes, clock: Clock) -> None:
        self._sandboxes = sandboxes
        self._clock = clock

    async def CreateSandbox(
        self, request: messages.CreateSandboxRequest, context: Context
    ) -> messages.CreateSandboxResponse:
        """Create a sandbox: the hot path."""
        received = self._clock.monotonic()
        fingerprint = fingerprint_of(request, request.request_id)
        deadline = _deadline(received, context)
        member = await self._sandboxes.create(new_sandbox(request), request.request_id, fingerprint, received, deadline)
        return messages.CreateSandboxResponse(sandbox=sandbox_message(member))

    async def BatchCreateSandboxes(
        self, request: messages.BatchCreateSandboxesRequest, context: Context
    ) -> messages.BatchCreateSandboxesResponse:
        """Create several sandboxes alike."""
        received = self._clock.monotonic()
        fingerprint = fingerprint_of(request, request.request_id)
        try:
            members = await self._sandboxes.create_batch(
                new_sandbox(request.sandbox),
                request.count,
                request.request_id,
                fingerprint,
                received,
                _deadline(received, context),
            )
        except InvalidArgument as error:
            raise _in_batch(error) from error
        return messages.BatchCreateSandboxesResponse(sandboxes=sandbox_messages(members))

    async def GetSandbox(self, request: messages.GetSandboxRequest, context: Context) -> messages.GetSandboxResponse:
        """Read one sandbox."""
        return messages.GetSandboxResponse(sandbox=sandbox_message(await self._sandboxes.get(request.sandbox_id)))

    async def ListSandboxes(
        self, request: messages.ListSandboxesRequest, context: Context
    ) -> messages.ListSandboxesResponse:
        """List sandboxes, oldest first."""
        read = partial(self._sandboxes.list, sandbox_filter(request))
        members, token = await page_of(request).fetch(read, lambda member: member.id)
        return messages.ListSandboxesResponse(sandboxes=sandbox_messages(members), next_page_token=token)

    async def UpdateSandbox(
        self, request: messages.UpdateSandboxRequest, context: Context
    ) -> messages.UpdateSandboxResponse:
        """Change a sandbox."""
        fingerprint = fingerprint_of(request, request.request_id)
        member = await self._sandboxes.update(
            request.sandbox_id, sandbox_changes(request), request.etag, request.request_id, fingerprint
        )
        return messages.UpdateSandboxResponse(sandbox=sandbox_message(member))

    async def DeleteSandbox(
        self, request: messages.DeleteSandboxRequest, context: Context
    ) -> messages.DeleteSandboxResponse:
        """End a sandbox."""
        fingerprint = fingerprint_of(request, request.request_id)
        member = await self._sandboxes.delete(request.sandbox_id, request.request_id, fingerprint)
        return messages.DeleteSandboxResponse(sandbox=sandbox_message(member))

    async def WatchSandbox(
        self, request: messages.WatchSandboxRequest, context: Context
    ) -> AsyncIterator[messages.WatchSandboxResponse]:
        """Stream a sandbox and its changes."""
        async with releasing(self._sandboxes.watch(request.sandbox_id)) as states:
            async for member in states:
                yield messages.WatchSandboxResponse(sandbox=sandbox_message(member))

    async def RunCommand(self, request: messages.RunCommandRequest, context: Context) -> messages.RunCommandResponse:
        """Run a command and answer with its end."""
        return run_command_answer(await self._sandboxes.run(request.sandbox_id, command(request)))


def _deadline(received: float, context: Context) -> float | None:
    """When the caller of a call that has just been received stops to wait, on the same scale; None for never."""
    remaining = context.time_remaining()
    return None if remaining is None else received + remaining


def _in_batch(error: InvalidArgument) -> InvalidArgument:
    """The error with the paths of a batch: a use case names the fields of a sandbox as if it stood alone."""
    own = messages.BatchCreateSandboxesRequest.DESCRIPTOR.fields_by_name
    return InvalidArgument(
        *(v if v.field in own else FieldViolation(f"sandbox.{v.field}", v.description) for v in error.violations),
        reason=error.reason,
    )
