"""Invalid input for every field of every request, generated from the descriptors.

A new field, request, rule or service is covered automatically, or a test fails with a message that names the table to
extend.
"""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ResourceInfo

from sandpool.v1 import container_pb2
from sandpool.v1 import file_service_pb2 as f
from sandpool.v1 import monitor_service_pb2 as m
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import port_service_pb2 as o
from sandpool.v1 import process_service_pb2 as x
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import secret_service_pb2 as k
from sandpool.v1 import template_service_pb2 as t
from tests.rpc.bad_values import CONTRACT, KNOWN_EXTENSIONS, PREDEFINED, Case, Unknown, cases_of
from tests.rpc.bases import BASES, MASKED, MESSAGE_RULES, UNCONSTRAINED
from tests.rpc.conftest import ReportedError, Rig, reported_error

FILES = (p, t, s, k, x, f, o, m)
KINDS = ("Pool", "Template", "Sandbox", "Secret", "Process", "File", "Port", "Monitor")
METHODS = [
    method for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]


def kind_of(method: MethodDescriptor) -> str:
    """Return the name of the channel method that creates calls of this kind."""
    kinds = ("unary", "stream")
    return f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"


def one(method: MethodDescriptor, request: Any) -> Any:
    """Return the argument of a call that sends this single request."""
    return iter((request,)) if method.client_streaming else request


async def send(rig: Rig, method: MethodDescriptor, request: Any) -> ReportedError | None:
    """Send a request to the server. Return its error, or None if the call succeeds."""
    make = getattr(rig.channel, kind_of(method))
    call = make(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )(one(method, request), timeout=10)
    try:
        if method.server_streaming:
            await call.read()
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return reported_error(error)
    return None


def base_of(method: MethodDescriptor) -> Any:
    name = method.input_type.full_name
    if name not in BASES:
        pytest.fail(f"{method.full_name}: add a valid {name} to BASES in tests/rpc/bases.py")
    request = type(BASES[name])()
    request.CopyFrom(BASES[name])
    return request


async def create_resources(rig: Rig) -> None:
    """Create the resources that the valid requests refer to."""
    await rig.templates.CreateTemplate(
        t.CreateTemplateRequest(name="existing", spec=container_pb2.ContainerSpec(image="i"))
    )
    await rig.pools.CreatePool(p.CreatePoolRequest(name="existing", spec=container_pb2.ContainerSpec(image="i")))
    await rig.sandboxes.CreateSandbox(
        s.CreateSandboxRequest(name="existing", spec=container_pb2.ContainerSpec(image="i"))
    )
    await rig.secrets.CreateSecret(k.CreateSecretRequest(name="EXISTING", value="hush"))


def test_covers_every_service_of_the_package() -> None:
    names = {service.full_name for file in FILES for service in file.DESCRIPTOR.services_by_name.values()}
    assert names == {f"sandpool.v1.{kind}Service" for kind in KINDS}
    assert len(METHODS) >= 54


def test_every_shared_rule_has_invalid_values() -> None:
    assert set(PREDEFINED) == KNOWN_EXTENSIONS


def test_detects_message_with_field_without_rule() -> None:
    with pytest.raises(Unknown, match="the field has no rule"):
        list(cases_of(p.GetPoolResponse.DESCRIPTOR.fields_by_name["pool"].message_type))


def with_parts(message: Descriptor) -> Iterator[Descriptor]:
    """Yield a message and its nested messages of this package."""
    yield message
    for field in message.fields:
        part = field.message_type
        if part is not None and part.full_name.startswith("sandpool.") and not part.GetOptions().map_entry:
            yield from with_parts(part)


def test_tables_have_no_unused_entries() -> None:
    requests = {method.input_type.full_name: method.input_type for method in METHODS}
    assert set(BASES) == set(requests)
    messages = {found.full_name: found for request in requests.values() for found in with_parts(request)}
    assert {field.full_name for message in messages.values() for field in message.fields} >= UNCONSTRAINED
    rules = [rule.id for message in messages.values() for rule in CONTRACT.message_rules(message).cel]
    assert set(MESSAGE_RULES) == set(rules)
    assert set(MASKED) == {method.name for method in METHODS if "update_mask" in method.input_type.fields_by_name}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_accepts_valid_request(rig: Rig, method: MethodDescriptor) -> None:
    await create_resources(rig)
    assert await send(rig, method, base_of(method)) is None


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_rejects_and_names_each_invalid_field(rig: Rig, method: MethodDescriptor) -> None:
    await create_resources(rig)
    base = base_of(method)
    try:
        cases = list(cases_of(method.input_type))
    except Unknown as unknown:
        pytest.fail(str(unknown))
    assert cases
    calls_before = len(rig.fakes.faults.calls)
    problems = []
    for case in cases:
        request = type(base)()
        request.CopyFrom(base)
        case.corrupt(request)
        problem = problem_of(case, await send(rig, method, request))
        if problem:
            problems.append(f"{case}: {problem}")
    assert not problems, "\n".join(problems)
    assert len(rig.fakes.faults.calls) == calls_before, "a use case received an invalid request"


def problem_of(case: Case, reported: ReportedError | None) -> str:
    """Return the problem of the error for an invalid request, or an empty string."""
    if reported is None:
        return "the request was accepted"
    if reported.code is not grpc.StatusCode.INVALID_ARGUMENT or reported.reason != "INVALID_FIELD":
        return f"unexpected error {reported.code.name} {reported.reason}: {reported.message}"
    descriptions = [description for path, description in reported.violations if path == case.path]
    if not descriptions:
        return f"the error names other fields: {reported.fields}"
    if not all(len(description) > 8 for description in descriptions):
        return f"the descriptions are too short: {descriptions}"
    if case.path not in reported.message:
        return f"the message does not name the field: {reported.message}"
    return ""


def not_utf8(method: MethodDescriptor) -> list[bytes]:
    """Return a request for each string field whose value is not UTF-8."""
    fields = [field for field in method.input_type.fields if field.type == field.TYPE_STRING]
    return [varint(field.number << 3 | 2) + b"\x02\xc3\x28" for field in fields]


def varint(number: int) -> bytes:
    """Return the number, of at most 14 bits, as a varint."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_rejects_malformed_requests(rig: Rig, method: MethodDescriptor) -> None:
    for data in (*not_utf8(method), b"\xff\xff\xff", b"\x0a\xff\x01cut", b"\x00\x00"):
        make = getattr(rig.channel, kind_of(method))
        call = make(f"/{method.containing_service.full_name}/{method.name}")(one(method, data), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if method.server_streaming else call)
        reported = reported_error(caught.value)
        assert reported.code is grpc.StatusCode.INVALID_ARGUMENT
        assert reported.reason == "MALFORMED_REQUEST"
        assert method.input_type.name in reported.message


STREAMED = [method for method in METHODS if method.client_streaming]


@pytest.mark.parametrize("method", STREAMED, ids=lambda method: method.name)
async def test_checks_later_requests_of_a_stream(rig: Rig, method: MethodDescriptor) -> None:
    await create_resources(rig)
    base = base_of(method)
    empty = type(base)()
    again = base_of(method)
    opening = next(oneof for oneof in method.input_type.oneofs if not oneof.name.startswith("_")).name
    make = getattr(rig.channel, kind_of(method))
    for second, path in ((empty, opening), (again, base.WhichOneof(opening)), (b"\xff\xff", None)):
        call = make(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        )(iter((base, second)), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if method.server_streaming else call)
        reported = reported_error(caught.value)
        assert reported.code is grpc.StatusCode.INVALID_ARGUMENT
        if path is not None:
            assert reported.fields == [path]


@pytest.mark.parametrize("method", STREAMED, ids=lambda method: method.name)
async def test_rejects_stream_without_requests(rig: Rig, method: MethodDescriptor) -> None:
    call = getattr(rig.channel, kind_of(method))(f"/{method.containing_service.full_name}/{method.name}")(iter(()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if method.server_streaming else call)
    assert reported_error(caught.value).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_ignores_fields_of_later_version(rig: Rig) -> None:
    await create_resources(rig)
    later_field = b"\xf2\x3f\x03new"  # field 1022
    data = BASES["sandpool.v1.GetPoolRequest"].SerializeToString() + later_field
    response = p.GetPoolResponse.FromString(await rig.raw("PoolService/GetPool", data))
    assert response.pool.name == "existing"


REFS = {"pool_id": "pool", "pool_ids": "pool", "template_name": "template", "sandbox_id": "sandbox"}


def refs_of(method: MethodDescriptor) -> list[str]:
    return [field.name for field in method.input_type.fields if field.name in REFS]


@pytest.mark.parametrize(
    ("method", "name"),
    [(method, name) for method in METHODS for name in refs_of(method)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
async def test_reports_not_found_for_missing_resource(rig: Rig, method: MethodDescriptor, name: str) -> None:
    request = base_of(method)
    if "spec" in method.input_type.fields_by_name and method.name.startswith("Create"):
        request.ClearField("spec")
    if name == "pool_ids":
        request.pool_ids.append("absent")
    else:
        setattr(request, name, "absent")
    reported = await send(rig, method, request)
    assert reported is not None
    assert reported.code is grpc.StatusCode.NOT_FOUND
    resource = reported.details[ResourceInfo]
    assert (resource.resource_type, resource.resource_name) == (REFS[name], "absent")
    assert reported.reason == f"{REFS[name].upper()}_NOT_FOUND"


# The agent defines the etags of files.
@pytest.mark.parametrize(
    "method",
    [m for m in METHODS if "etag" in m.input_type.fields_by_name and m.name != "ReadFile"],
    ids=lambda m: m.name,
)
async def test_rejects_invalid_etag(rig: Rig, method: MethodDescriptor) -> None:
    await create_resources(rig)
    request = base_of(method)
    request.etag = "W/garbage"
    reported = await send(rig, method, request)
    assert reported is not None
    assert (reported.code, reported.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["etag"])


@pytest.mark.parametrize(
    "method", [m for m in METHODS if "update_mask" in m.input_type.fields_by_name], ids=lambda m: m.name
)
async def test_rejects_mask_with_unknown_or_fixed_fields(rig: Rig, method: MethodDescriptor) -> None:
    await create_resources(rig)
    forbidden = MASKED[method.name]
    for path in (*forbidden, "", "nonsense", "name.first", "metadata.a", "update_mask.paths", "NAME", "status"):
        request = base_of(method)
        request.update_mask.paths.append(path)
        reported = await send(rig, method, request)
        assert reported is not None, path
        assert (reported.code, reported.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["update_mask"])
        allowed = {field.name for field in method.input_type.fields} - forbidden
        description = reported.violations[0][1]
        assert all(name in description for name in allowed)
        assert repr(path) in description
