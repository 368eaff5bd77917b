"""Bad input for every field of every request, generated from the descriptors.

A new field, request, rule or service is covered without anyone remembering: either by the generator, or by a failure
here that says what to enter where.
"""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ResourceInfo

from buf.validate import validate_pb2
from sandpool.v1 import file_service_pb2 as f
from sandpool.v1 import monitor_service_pb2 as m
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import port_service_pb2 as o
from sandpool.v1 import process_service_pb2 as x
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import secret_service_pb2 as k
from sandpool.v1 import template_service_pb2 as t
from tests.rpc.bad_values import KNOWN_EXTENSIONS, PREDEFINED, Case, Unknown, cases_of
from tests.rpc.bases import BASES, MASKED, MESSAGE_RULES, UNCONSTRAINED
from tests.rpc.conftest import Rig, Told, told

FILES = (p, t, s, k, x, f, o, m)
KINDS = ("Pool", "Template", "Sandbox", "Secret", "Process", "File", "Port", "Monitor")
METHODS = [
    method for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]


def kind_of(method: MethodDescriptor) -> str:
    """The channel's factory of calls of such a method."""
    words = ("unary", "stream")
    return f"{words[method.client_streaming]}_{words[method.server_streaming]}"


def one(method: MethodDescriptor, request: Any) -> Any:
    """What a call is given to send this one request."""
    return iter((request,)) if method.client_streaming else request


async def send(rig: Rig, method: MethodDescriptor, request: Any) -> Told | None:
    """Send a request over the wire; what was told of a refusal, None when the call went well."""
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
        return told(error)
    return None


def base_of(method: MethodDescriptor) -> Any:
    name = method.input_type.full_name
    if name not in BASES:
        pytest.fail(f"{method.full_name}: enter a valid {name} in tests/rpc/bases.py (BASES)")
    request = type(BASES[name])()
    request.CopyFrom(BASES[name])
    return request


async def fill(rig: Rig) -> None:
    """Make what the base requests are about."""
    await rig.templates.CreateTemplate(t.CreateTemplateRequest(name="kept", image="i"))
    await rig.pools.CreatePool(p.CreatePoolRequest(name="kept", image="i"))
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(name="kept", image="i"))
    await rig.secrets.CreateSecret(k.CreateSecretRequest(name="KEPT", value="hush"))


def test_every_service_of_the_package_is_walked() -> None:
    names = {service.full_name for file in FILES for service in file.DESCRIPTOR.services_by_name.values()}
    assert names == {f"sandpool.v1.{kind}Service" for kind in KINDS}
    assert len(METHODS) >= 54


def test_every_shared_rule_has_wrong_values() -> None:
    assert set(PREDEFINED) == KNOWN_EXTENSIONS


def test_a_message_with_a_field_that_no_rule_is_about_is_noticed() -> None:
    with pytest.raises(Unknown, match="no rule is about this field"):
        list(cases_of(p.GetPoolResponse.DESCRIPTOR.fields_by_name["pool"].message_type))


def with_parts(message: Descriptor) -> Iterator[Descriptor]:
    """A message and all of ours inside it."""
    yield message
    for field in message.fields:
        part = field.message_type
        if part is not None and part.full_name.startswith("sandpool.") and not part.GetOptions().map_entry:
            yield from with_parts(part)


def test_no_table_has_entries_that_nothing_needs() -> None:
    requests = {method.input_type.full_name: method.input_type for method in METHODS}
    assert set(BASES) == set(requests)
    messages = {found.full_name: found for request in requests.values() for found in with_parts(request)}
    assert {field.full_name for message in messages.values() for field in message.fields} >= UNCONSTRAINED
    rules = [rule.id for r in messages.values() for rule in r.GetOptions().Extensions[validate_pb2.message].cel]
    assert set(MESSAGE_RULES) == set(rules)
    assert set(MASKED) == {method.name for method in METHODS if "update_mask" in method.input_type.fields_by_name}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_the_base_request_is_accepted(rig: Rig, method: MethodDescriptor) -> None:
    await fill(rig)
    assert await send(rig, method, base_of(method)) is None


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_each_wrong_field_is_refused_by_its_name(rig: Rig, method: MethodDescriptor) -> None:
    await fill(rig)
    base = base_of(method)
    try:
        cases = list(cases_of(method.input_type))
    except Unknown as unknown:
        pytest.fail(str(unknown))
    assert cases
    calls_before = len(rig.fakes.faults.calls)
    wrong = []
    for case in cases:
        request = type(base)()
        request.CopyFrom(base)
        case.spoil(request)
        problem = judge(case, await send(rig, method, request))
        if problem:
            wrong.append(f"{case}: {problem}")
    assert not wrong, "\n".join(wrong)
    assert len(rig.fakes.faults.calls) == calls_before, "a use case saw a request that is wrong"


def judge(case: Case, answer: Told | None) -> str:
    """What is wrong with the answer to a spoilt request; nothing if it is as it should be."""
    if answer is None:
        return "was accepted"
    if answer.code is not grpc.StatusCode.INVALID_ARGUMENT or answer.reason != "INVALID_FIELD":
        return f"was told {answer.code.name} {answer.reason} {answer.message}"
    blamed = [description for path, description in answer.violations if path == case.path]
    if not blamed:
        return f"blames {answer.fields}"
    if not all(len(description) > 8 for description in blamed):
        return f"says {blamed}"
    if case.path not in answer.message:
        return f"the message does not name the field: {answer.message}"
    return ""


def not_utf8(method: MethodDescriptor) -> list[bytes]:
    """A request for each text field, whose text is not UTF-8."""
    fields = [field for field in method.input_type.fields if field.type == field.TYPE_STRING]
    return [varint(field.number << 3 | 2) + b"\x02\xc3\x28" for field in fields]


def varint(number: int) -> bytes:
    """The number, of at most 14 bits, as field tags have it."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_bytes_that_are_no_request_are_refused(rig: Rig, method: MethodDescriptor) -> None:
    for data in (*not_utf8(method), b"\xff\xff\xff", b"\x0a\xff\x01cut", b"\x00\x00"):
        make = getattr(rig.channel, kind_of(method))
        call = make(f"/{method.containing_service.full_name}/{method.name}")(one(method, data), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if method.server_streaming else call)
        answer = told(caught.value)
        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
        assert answer.reason == "MALFORMED_REQUEST"
        assert method.input_type.name in answer.message


STREAMED = [method for method in METHODS if method.client_streaming]


@pytest.mark.parametrize("method", STREAMED, ids=lambda method: method.name)
async def test_later_requests_of_a_stream_are_checked_too(rig: Rig, method: MethodDescriptor) -> None:
    await fill(rig)
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
        answer = told(caught.value)
        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
        if path is not None:
            assert answer.fields == [path]


@pytest.mark.parametrize("method", STREAMED, ids=lambda method: method.name)
async def test_a_stream_without_requests_is_refused(rig: Rig, method: MethodDescriptor) -> None:
    call = getattr(rig.channel, kind_of(method))(f"/{method.containing_service.full_name}/{method.name}")(iter(()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if method.server_streaming else call)
    assert told(caught.value).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_fields_of_a_later_version_are_ignored(rig: Rig) -> None:
    await fill(rig)
    later_field = b"\xf2\x3f\x03new"  # field 1022
    data = BASES["sandpool.v1.GetPoolRequest"].SerializeToString() + later_field
    answer = p.GetPoolResponse.FromString(await rig.raw("PoolService/GetPool", data))
    assert answer.pool.name == "kept"


REFS = {"pool_id": "pool", "pool_ids": "pool", "template_name": "template", "sandbox_id": "sandbox"}


def refs_of(method: MethodDescriptor) -> list[str]:
    return [field.name for field in method.input_type.fields if field.name in REFS]


@pytest.mark.parametrize(
    ("method", "name"),
    [(method, name) for method in METHODS for name in refs_of(method)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
async def test_what_does_not_exist_is_not_found(rig: Rig, method: MethodDescriptor, name: str) -> None:
    request = base_of(method)
    if "image" in method.input_type.fields_by_name and method.name.startswith("Create"):
        request.ClearField("image")
    if name == "pool_ids":
        request.pool_ids.append("absent")
    else:
        setattr(request, name, "absent")
    answer = await send(rig, method, request)
    assert answer is not None
    assert answer.code is grpc.StatusCode.NOT_FOUND
    resource = answer.details[ResourceInfo]
    assert (resource.resource_type, resource.resource_name) == (REFS[name], "absent")
    assert answer.reason == f"{REFS[name].upper()}_NOT_FOUND"


# The etag of a file is its agent's.
@pytest.mark.parametrize(
    "method",
    [m for m in METHODS if "etag" in m.input_type.fields_by_name and m.name != "ReadFile"],
    ids=lambda m: m.name,
)
async def test_an_etag_that_is_none_is_refused(rig: Rig, method: MethodDescriptor) -> None:
    await fill(rig)
    request = base_of(method)
    request.etag = "W/garbage"
    answer = await send(rig, method, request)
    assert answer is not None
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["etag"])


@pytest.mark.parametrize(
    "method", [m for m in METHODS if "update_mask" in m.input_type.fields_by_name], ids=lambda m: m.name
)
async def test_a_mask_that_names_what_cannot_be_updated_is_refused(rig: Rig, method: MethodDescriptor) -> None:
    await fill(rig)
    forbidden = MASKED[method.name]
    for path in (*forbidden, "", "nonsense", "name.first", "metadata.a", "update_mask.paths", "NAME", "status"):
        request = base_of(method)
        request.update_mask.paths.append(path)
        answer = await send(rig, method, request)
        assert answer is not None, path
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["update_mask"])
        allowed = {field.name for field in method.input_type.fields} - forbidden
        description = answer.violations[0][1]
        assert all(name in description for name in allowed)
        assert repr(path) in description
