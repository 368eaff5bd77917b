"""An agent on the loopback interface that sends the responses, valid or invalid, that a test specifies."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from sandpool_server.gen.agent.v1 import agent_service_pb2 as agent_pb
from sandpool_server.gen.agent.v1 import agent_service_pb2_grpc as agent_grpc
from sandpool_server.gen.agent.v1 import process_pb2
from sandpool_server.runtime.agents import PROTOCOL_VERSION

KEY = b"k" * 32
Handler = Callable[[Any, Any], Awaitable[Any]]
"""Handles a request, like the method of a servicer."""


def exited(code: int = 0, **fields: Any) -> agent_pb.RunCommandResponse:
    """Return the response for a command that exited."""
    return agent_pb.RunCommandResponse(
        exit=process_pb2.ProcessExit(exit_code=code, reason=process_pb2.EXIT_REASON_EXITED), **fields
    )


def entrypoint_state(state: process_pb2.EntrypointState.ValueType, error: str = "") -> agent_pb.ConfigureResponse:
    """Return the response to `Configure`."""
    return agent_pb.ConfigureResponse(entrypoint=process_pb2.EntrypointStatus(state=state, error=error))


class ScriptedAgent(agent_grpc.AgentServiceServicer):
    """An agent whose responses a test specifies: `run_handler` for commands, `configure_handler` for `Configure`."""

    def __init__(self) -> None:
        self.run_handler: Handler | None = None
        self.run_requests: list[agent_pb.RunCommandRequest] = []
        self.configure_requests: list[agent_pb.ConfigureRequest] = []
        self.authorization: list[str] = []
        self.protocol_version = PROTOCOL_VERSION
        self.version = ""
        self.configure_error = ""
        self.configure_handler: Handler | None = None
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()

    async def GetInfo(self, request: agent_pb.GetInfoRequest, context: Any) -> agent_pb.GetInfoResponse:
        self.authorization.append(dict(context.invocation_metadata())["authorization"])
        return agent_pb.GetInfoResponse(protocol_version=self.protocol_version, version=self.version)

    async def Configure(self, request: agent_pb.ConfigureRequest, context: Any) -> agent_pb.ConfigureResponse:
        self.configure_requests.append(request)
        if self.configure_error:
            await context.abort(grpc.StatusCode.NOT_FOUND, self.configure_error)
        if self.configure_handler is not None:
            return await self.configure_handler(request, context)
        return entrypoint_state(
            process_pb2.ENTRYPOINT_STATE_RUNNING
            if request.HasField("entrypoint")
            else process_pb2.ENTRYPOINT_STATE_NONE
        )

    async def RunCommand(self, request: agent_pb.RunCommandRequest, context: Any) -> agent_pb.RunCommandResponse:
        self.run_requests.append(request)
        self.entered.set()
        assert self.run_handler is not None
        try:
            return await self.run_handler(request, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def responding(response: Any) -> Handler:
    """Return this response to every request."""

    async def respond(_request: Any, _context: Any) -> Any:
        return response

    return respond


def refusing(code: grpc.StatusCode, message: str, reason: str = "", *fields: tuple[str, str]) -> Handler:
    """Refuse every request with a status and its details, as the agent does."""
    details = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="sandpool"))
    if fields:
        violations = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in fields]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    packed = []
    for detail in details:
        message_any = any_pb2.Any()
        message_any.Pack(detail)
        packed.append(message_any)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)

    async def refuse(_request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        return await context.abort(code, message)

    return refuse


async def hang(_request: Any, _context: Any) -> Any:
    """Never respond."""
    await asyncio.Event().wait()
    raise AssertionError
