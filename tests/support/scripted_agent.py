"""An agent on loopback whose answers a test writes, right or wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from sandpool.agent.v1 import agent_service_pb2 as agent_pb
from sandpool.agent.v1 import agent_service_pb2_grpc as agent_grpc
from sandpool.agent.v1 import process_pb2

KEY = b"k" * 32
Answer = Callable[[Any, Any], Awaitable[Any]]
"""Answers a request in a context, as a servicer's method does."""


def exited(code: int = 0, **fields: Any) -> agent_pb.RunCommandResponse:
    """How a command that ended by itself is answered."""
    return agent_pb.RunCommandResponse(
        end=process_pb2.ProcessEnd(exit_code=code, reason=process_pb2.END_REASON_EXITED), **fields
    )


def entrypoint_state(state: process_pb2.EntrypointState.ValueType, error: str = "") -> agent_pb.ConfigureResponse:
    """How a configuration is answered."""
    return agent_pb.ConfigureResponse(entrypoint=process_pb2.EntrypointStatus(state=state, error=error))


class ScriptedAgent(agent_grpc.AgentServiceServicer):
    """An agent whose answers a test writes."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.run_requests: list[agent_pb.RunCommandRequest] = []
        self.configure_requests: list[agent_pb.ConfigureRequest] = []
        self.authorization: list[str] = []
        self.protocol_version = 4
        self.version = ""
        self.configure_error = ""
        self.configure_answer: Answer | None = None
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()

    async def GetInfo(self, request: agent_pb.GetInfoRequest, context: Any) -> agent_pb.GetInfoResponse:
        self.authorization.append(dict(context.invocation_metadata())["authorization"])
        return agent_pb.GetInfoResponse(protocol_version=self.protocol_version, version=self.version)

    async def Configure(self, request: agent_pb.ConfigureRequest, context: Any) -> agent_pb.ConfigureResponse:
        self.configure_requests.append(request)
        if self.configure_error:
            await context.abort(grpc.StatusCode.NOT_FOUND, self.configure_error)
        if self.configure_answer is not None:
            return await self.configure_answer(request, context)
        return entrypoint_state(
            process_pb2.ENTRYPOINT_STATE_RUNNING
            if request.HasField("entrypoint")
            else process_pb2.ENTRYPOINT_STATE_NONE
        )

    async def RunCommand(self, request: agent_pb.RunCommandRequest, context: Any) -> agent_pb.RunCommandResponse:
        self.run_requests.append(request)
        self.entered.set()
        assert self.answer is not None
        try:
            return await self.answer(request, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def answering(response: Any) -> Answer:
    """Give this answer to everything."""

    async def answer(_request: Any, _context: Any) -> Any:
        return response

    return answer


def refusing(code: grpc.StatusCode, message: str, reason: str = "", *fields: tuple[str, str]) -> Answer:
    """Refuse as the agent does: with a status and its details."""
    details = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="sandpool"))
    if fields:
        violations = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in fields]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    packed = []
    for detail in details:
        box = any_pb2.Any()
        box.Pack(detail)
        packed.append(box)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)

    async def answer(_request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        return await context.abort(code, message)

    return answer


async def hang(_request: Any, _context: Any) -> Any:
    """Answer nothing, for ever."""
    await asyncio.Event().wait()
    raise AssertionError
