"""Reflection, with grpcurl and with a client of each version of the protocol."""

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import (
    ExtensionRequest,
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from sandpool.v1 import pool_service_pb2 as p
from sandpool_server.rpc.reflection import SERVICES
from tests.rpc.conftest import Rig
from tests.rpc.test_health import SERVICES as API_SERVICES
from tests.support.grpcurl import grpcurl

NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
Request = ServerReflectionRequest
CREATE_POOL = "sandpool.v1.PoolService.CreatePool"


async def ask(rig: Rig, service: str, *requests: ServerReflectionRequest) -> list[ServerReflectionResponse]:
    """Send requests on one stream and return their responses."""
    call = rig.channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=Request.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )(iter(requests))
    return [response async for response in call]


def files_of(response: ServerReflectionResponse) -> list[FileDescriptorProto]:
    return [FileDescriptorProto.FromString(data) for data in response.file_descriptor_response.file_descriptor_proto]


@pytest.mark.parametrize("service", SERVICES)
async def test_lists_every_service(rig: Rig, service: str) -> None:
    (response,) = await ask(rig, service, Request(list_services=""))
    listed = [found.name for found in response.list_services_response.service]
    assert listed == sorted({*API_SERVICES[1:], "grpc.health.v1.Health", *SERVICES})


@pytest.mark.parametrize("service", SERVICES)
async def test_returns_the_file_of_a_symbol_with_all_imports(rig: Rig, service: str) -> None:
    symbols = ("sandpool.v1.PoolService", CREATE_POOL, "sandpool.v1.CreatePoolRequest")
    requests = [Request(host="h", file_containing_symbol=symbol) for symbol in symbols]
    responses = await ask(rig, service, *requests)
    assert [response.original_request for response in responses] == requests
    assert {response.valid_host for response in responses} == {"h"}
    for response in responses:
        files = files_of(response)
        assert files[0].name == "sandpool/v1/pool_service.proto"
        assert files[0].source_code_info.location
        names = {file.name for file in files}
        assert len(names) == len(files)
        assert {name for file in files for name in file.dependency} <= names


async def test_finds_extensions(rig: Rig) -> None:
    responses = await ask(
        rig,
        SERVICES[0],
        Request(all_extension_numbers_of_type="google.protobuf.FieldOptions"),
        Request(
            file_containing_extension=ExtensionRequest(
                containing_type="google.protobuf.FieldOptions", extension_number=1159
            )
        ),
        Request(file_by_filename="sandpool/v1/rules.proto"),
    )
    assert 1159 in responses[0].all_extension_numbers_response.extension_number
    assert files_of(responses[1])[0].name == "buf/validate/validate.proto"
    assert files_of(responses[2])[0].name == "sandpool/v1/rules.proto"


@pytest.mark.parametrize(
    "request_",
    [
        Request(file_containing_symbol=f"{CREATE_POOL}.Absent"),
        Request(file_containing_symbol="sandpool.agent.v1.AgentService"),
        Request(file_by_filename="sandpool/v1/absent.proto"),
        Request(file_containing_extension=ExtensionRequest(containing_type="google.protobuf.FieldOptions")),
        Request(file_containing_extension=ExtensionRequest(containing_type="absent.Message")),
        Request(all_extension_numbers_of_type="absent.Message"),
    ],
    ids=str,
)
async def test_reports_unknown_symbol_and_continues(rig: Rig, request_: ServerReflectionRequest) -> None:
    refused, listed = await ask(rig, SERVICES[0], request_, Request(list_services=""))
    assert refused.error_response.error_code == NOT_FOUND
    assert listed.list_services_response.service


async def test_rejects_empty_request(rig: Rig) -> None:
    (refused,) = await ask(rig, SERVICES[0], Request())
    assert refused.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_grpcurl_prints_comments(rig: Rig) -> None:
    address = f"127.0.0.1:{rig.port}"
    described = await grpcurl(address, "describe", CREATE_POOL)
    comment, _, declaration = described.partition("rpc CreatePool")
    assert "// Creates a pool" in comment
    assert ".sandpool.v1.CreatePoolRequest" in declaration
    message = await grpcurl(address, "describe", "sandpool.v1.CreatePoolRequest")
    for field in p.CreatePoolRequest.DESCRIPTOR.fields:
        lines = message.splitlines()
        at = next(number for number, line in enumerate(lines) if f" {field.name} = {field.number}" in line)
        assert lines[at - 1].startswith("  //"), field.name


@pytest.mark.parametrize(
    "symbol",
    [
        "grpc.health.v1.Health",
        *SERVICES,
        "google.rpc.Status",
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
        "google.protobuf.Any",
        "google.protobuf.Duration",
        "google.protobuf.FieldMask",
        "google.protobuf.Timestamp",
        "buf.validate.FieldRules",
    ],
)
async def test_grpcurl_describes_types_that_the_contract_uses(rig: Rig, symbol: str) -> None:
    described = await grpcurl(f"127.0.0.1:{rig.port}", "describe", symbol)
    assert described.startswith(f"{symbol} is a "), described


async def test_grpcurl_prints_details_of_error(rig: Rig) -> None:
    name = "sandpool.v1.PoolService/CreatePool"
    printed = await grpcurl(f"127.0.0.1:{rig.port}", name, data={"name": "NOT A NAME"})
    assert "Code: InvalidArgument" in printed
    assert '"@type": "type.googleapis.com/google.rpc.BadRequest"' in printed
    assert '"field": "name"' in printed
