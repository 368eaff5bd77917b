"""What a caller is told of each error: code, reason, details; and what it is never told."""

import re
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    QuotaFailure,
    ResourceInfo,
    RetryInfo,
)
from structlog.testing import capture_logs

from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool_server.domain import errors
from sandpool_server.domain.errors import (
    Aborted,
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    FailureReason,
    FieldViolation,
    IllegalTransition,
    InvalidArgument,
    LaunchFailed,
    NotFound,
    NotReadyInTime,
    OutOfRange,
    SandpoolError,
    Unavailable,
)
from sandpool_server.rpc.drain import ServerStopping
from sandpool_server.rpc.statuses import status_of
from sandpool_server.rpc.validation import RequestValidator
from tests.rpc.bases import BASES
from tests.rpc.conftest import Rig, Told, refused

CODE = grpc.StatusCode

CASES = [
    (
        InvalidArgument(FieldViolation("image", "is wrong"), FieldViolation("env", "too")),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        {BadRequest},
    ),
    (NotFound("pool", "web", "make it"), CODE.NOT_FOUND, "POOL_NOT_FOUND", {ResourceInfo}),
    (NotFound("secret", "KEY"), CODE.NOT_FOUND, "SECRET_NOT_FOUND", {ResourceInfo}),
    (AlreadyExists("secret", "KEY"), CODE.ALREADY_EXISTS, "SECRET_ALREADY_EXISTS", {ResourceInfo}),
    *(
        (
            FailedPrecondition(reason, "why", resource_type, "it"),
            CODE.FAILED_PRECONDITION,
            reason,
            {PreconditionFailure, ResourceInfo},
        )
        for reason, resource_type in (
            ("POOL_DRAINED", "pool"),
            ("SECRET_IN_USE", "secret"),
            ("SECRET_MISSING", "secret"),
            ("SECRET_UNREADABLE", "secret"),
        )
    ),
    (Exhausted("POOL_EMPTY", "none ready", "pool:web", 0.5), CODE.RESOURCE_EXHAUSTED, "POOL_EMPTY", {RetryInfo}),
    (AlreadyExists("template", "py"), CODE.ALREADY_EXISTS, "TEMPLATE_ALREADY_EXISTS", {ResourceInfo}),
    (
        FailedPrecondition("POOL_IN_USE", "2 sandboxes", "pool", "web"),
        CODE.FAILED_PRECONDITION,
        "POOL_IN_USE",
        {PreconditionFailure, ResourceInfo},
    ),
    (Aborted("pool", "web"), CODE.ABORTED, "ETAG_MISMATCH", {ResourceInfo}),
    (OutOfRange("there are 3 bytes"), CODE.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE", set()),
    (
        Exhausted("POOL_AT_MAX", "full", "pool:web", 2.5),
        CODE.RESOURCE_EXHAUSTED,
        "POOL_AT_MAX",
        {QuotaFailure, RetryInfo},
    ),
    (Unavailable("ENGINE_UNREACHABLE", "gone", 1.5), CODE.UNAVAILABLE, "ENGINE_UNREACHABLE", {RetryInfo}),
    (ServerStopping(), CODE.UNAVAILABLE, "SERVER_STOPPING", {RetryInfo}),
    (NotReadyInTime("too slow"), CODE.DEADLINE_EXCEEDED, "NOT_READY_IN_TIME", set()),
    *(
        (LaunchFailed(reason, f"{reason}: do this"), code, reason.name, details)
        for reason, code, details in (
            (FailureReason.IMAGE_NOT_FOUND, CODE.FAILED_PRECONDITION, {PreconditionFailure}),
            (FailureReason.PULL_FAILED, CODE.FAILED_PRECONDITION, {PreconditionFailure}),
            (FailureReason.START_FAILED, CODE.FAILED_PRECONDITION, {PreconditionFailure}),
            (FailureReason.LIMIT_UNSUPPORTED, CODE.FAILED_PRECONDITION, {PreconditionFailure}),
            (FailureReason.ENGINE_UNREACHABLE, CODE.UNAVAILABLE, {RetryInfo}),
            (FailureReason.DISK_FULL, CODE.RESOURCE_EXHAUSTED, {QuotaFailure, RetryInfo}),
            (FailureReason.NOT_READY, CODE.DEADLINE_EXCEEDED, set()),
        )
    ),
]


async def fail(rig: Rig, error: BaseException) -> Told:
    rig.fakes.faults.error = error
    return await refused(rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(image="i", request_id="r-7")))


@pytest.mark.parametrize(("error", "code", "reason", "details"), CASES, ids=lambda v: v if isinstance(v, str) else "")
async def test_each_error_has_its_code_and_details(rig: Rig, error: Any, code: Any, reason: str, details: set) -> None:
    with capture_logs() as logs:
        answer = await fail(rig, error)
    assert (answer.code, answer.reason, answer.message) == (code, reason, error.message)
    assert set(answer.details) == {ErrorInfo} | details
    assert [(line["event"], line["code"]) for line in logs] == [("call", code.name)]


def test_no_error_is_left_out() -> None:
    def kinds(base: type) -> set[type]:
        return {base, *(kind for sub in base.__subclasses__() for kind in kinds(sub))}

    tried = {type(error) for error, *_ in CASES}
    assert kinds(SandpoolError) - {SandpoolError} - tried == set()
    assert {e.reason for e, *_ in CASES if isinstance(e, LaunchFailed)} == set(FailureReason)
    public = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert public - tried == {SandpoolError, IllegalTransition}


def test_an_error_without_a_class_of_its_own_is_a_bug() -> None:
    with pytest.raises(TypeError):
        status_of(SandpoolError("X", "x"))


async def test_the_details_say_what_and_when(rig: Rig) -> None:
    answer = await fail(rig, CASES[0][0])
    assert answer.violations == [("image", "is wrong"), ("env", "too")]
    resource = (await fail(rig, NotFound("pool", "web"))).details[ResourceInfo]
    assert (resource.resource_type, resource.resource_name) == ("pool", "web")
    answer = await fail(rig, Exhausted("POOL_AT_MAX", "full", "pool:web", 2.5))
    quota = answer.details[QuotaFailure].violations[0]
    assert (quota.subject, quota.description) == ("pool:web", "full")
    assert answer.details[RetryInfo].retry_delay.ToTimedelta().total_seconds() == 2.5
    answer = await fail(rig, FailedPrecondition("POOL_IN_USE", "2 sandboxes", "pool", "web"))
    failure = answer.details[PreconditionFailure].violations[0]
    assert (failure.type, failure.subject, failure.description) == ("POOL_IN_USE", "pool:web", "2 sandboxes")
    resource = answer.details[ResourceInfo]
    assert (resource.resource_type, resource.resource_name) == ("pool", "web")


@pytest.mark.parametrize("kind", ["pool", "template", "secret", "sandbox", "process", "file", "upload"])
def test_what_is_missing_says_what_to_do(kind: str) -> None:
    assert re.fullmatch(rf"there is no {kind} 'x'; \w.{{10,}}", NotFound(kind, "x").message)
    assert NotFound(kind, "x", "make it").message == f"there is no {kind} 'x'; make it"


@pytest.mark.parametrize("error", [RuntimeError("password 1234"), IllegalTransition("password 1234"), KeyError("1234")])
async def test_a_bug_is_told_as_a_number(rig: Rig, error: Exception) -> None:
    with capture_logs() as logs:
        answer = await fail(rig, error)
    assert (answer.code, answer.reason) == (CODE.INTERNAL, "INTERNAL")
    assert "1234" not in answer.message
    assert set(answer.details) == {ErrorInfo}
    incident = answer.metadata["incident"]
    assert incident in answer.message
    failure, line = logs
    assert (failure["incident"], failure["exc_info"], failure["log_level"]) == (incident, error, "error")
    assert (line["code"], line["incident"], line["request_id"]) == ("INTERNAL", incident, "r-7")


async def test_a_bug_in_a_stream_is_told_as_a_number(rig: Rig) -> None:
    rig.fakes.faults.error = RuntimeError("password 1234")
    answer = await refused(rig.pools.WatchPools(p.WatchPoolsRequest()).read())
    assert (answer.code, answer.reason) == (CODE.INTERNAL, "INTERNAL")
    assert "1234" not in answer.message


async def test_an_error_of_a_stream_has_its_details(rig: Rig) -> None:
    answer = await refused(rig.pools.WatchPools(p.WatchPoolsRequest(pool_ids=["absent"])).read())
    assert (answer.code, answer.reason) == (CODE.NOT_FOUND, "POOL_NOT_FOUND")
    assert not rig.fakes.pools.watchers


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument(*(FieldViolation(f"metadata[{'ü' * 300}{i}]", "€" * 900) for i in range(500))),
        NotFound("pool", "€" * 9000),
        FailedPrecondition("POOL_IN_USE", "\udc80" * 9000, "pool", "\n\0é" * 5000),
        Exhausted("POOL_AT_MAX", "€" * 9000, "ü" * 9000, 1),
        LaunchFailed(FailureReason.PULL_FAILED, "€\x07" * 9000),
        LaunchFailed(FailureReason.DISK_FULL, "€" * 9000),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_status_is_larger_than_clients_take(rig: Rig, error: Exception) -> None:
    answer = await fail(rig, error)
    assert answer.code is not CODE.INTERNAL
    assert answer.reason in ("INVALID_FIELD", getattr(error.reason, "name", error.reason))
    # As HTTP/2 counts it: the message percent-encoded, the details in base64, 32 bytes an entry.
    size = sum(1 if 32 <= byte < 127 and byte != ord("%") else 3 for byte in answer.message.encode())
    size += (status_of(error).ByteSize() + 2) // 3 * 4 + 200
    assert size < 8192


async def test_violations_that_do_not_fit_are_counted(rig: Rig) -> None:
    request = s.CreateSandboxRequest(image="i", secret_names=[f"A B{i}" for i in range(60)])
    answer = await refused(rig.sandboxes.CreateSandbox(request))
    assert answer.fields[:2] == ["secret_names[0]", "secret_names[1]"]
    assert 5 < len(answer.fields) < 60
    shown = answer.message.count("secret_names[")
    assert answer.message.endswith(f"; and {60 - shown} more")


async def test_a_list_that_is_too_long_is_not_looked_into(rig: Rig) -> None:
    request = s.BatchCreateSandboxesRequest(
        sandbox=s.CreateSandboxRequest(
            image="i", secret_names=["A B"] * 100_000, metadata={str(i): "\0" for i in range(65)}
        )
    )
    answer = await refused(rig.sandboxes.BatchCreateSandboxes(request))
    assert answer.violations == [
        ("sandbox.secret_names", "must have at most 64 entries, not 100000"),
        ("sandbox.metadata", "must have at most 64 entries, not 65"),
    ]


async def test_of_a_large_request_the_first_violation_is_told(rig: Rig) -> None:
    request = s.RunCommandRequest(sandbox_id="one", argv=["a\0"] * 1001)
    answer = await refused(rig.sandboxes.RunCommand(request))
    assert answer.violations == [("argv[0]", "must not contain a NUL character")]


async def test_a_mask_has_its_limit_too(rig: Rig) -> None:
    request = p.UpdatePoolRequest(pool_id="x", update_mask={"paths": ["name"] * 101})
    assert (await refused(rig.pools.UpdatePool(request))).fields == ["update_mask"]


def test_every_list_of_a_request_has_a_limit() -> None:
    validator = RequestValidator()
    validator.warm(type(request) for request in BASES.values())
    assert all(bound.most > 0 for bounds in validator._bounds.values() for bound in bounds)
    assert [bound.path for bound in validator._bounds["sandpool.v1.BatchCreateSandboxesRequest"]] == [
        "sandbox.secret_names",
        "sandbox.entrypoint",
        "sandbox.metadata",
        "sandbox.env",
        "sandbox.readiness_command",
    ]


async def test_all_violations_come_at_once(rig: Rig) -> None:
    request = s.BatchCreateSandboxesRequest(
        sandbox=s.CreateSandboxRequest(image="", cpus=0, secret_names=["A", "A B"], metadata={"k": "v\0", "": "x"}),
        count=0,
    )
    answer = await refused(rig.sandboxes.BatchCreateSandboxes(request))
    assert set(answer.fields) == {
        "sandbox.pool_id",
        "sandbox.image",
        "sandbox.cpus",
        "sandbox.secret_names[1]",
        'sandbox.metadata["k"]',
        'sandbox.metadata[""]',
        "count",
    }
    assert ('sandbox.metadata[""]', "the key must be at least 1 characters") in answer.violations


async def test_what_a_use_case_finds_wrong_in_a_batch_is_blamed_where_it_stands(rig: Rig) -> None:
    rig.fakes.faults.error = InvalidArgument(FieldViolation("env", "too much"), FieldViolation("request_id", "used"))
    request = s.CreateSandboxRequest(image="i")
    batch = s.BatchCreateSandboxesRequest(sandbox=request, count=2, request_id="r")
    assert (await refused(rig.sandboxes.BatchCreateSandboxes(batch))).fields == ["sandbox.env", "request_id"]
    assert (await refused(rig.sandboxes.CreateSandbox(request))).fields == ["env", "request_id"]


async def test_an_enum_says_what_there_is(rig: Rig) -> None:
    answer = await refused(rig.sandboxes.ListSandboxes(s.ListSandboxesRequest(states=[1, 77])))
    names = "SANDBOX_STATE_STARTING, SANDBOX_STATE_RUNNING, SANDBOX_STATE_TERMINATING, SANDBOX_STATE_TERMINATED"
    assert answer.violations == [("states[1]", f"must be one of {names}")]


async def test_a_long_key_is_cut_in_the_path(rig: Rig) -> None:
    key = 'a"\0' + "x" * 5000
    request = s.CreateSandboxRequest(image="i", metadata={key: ""})
    answer = await refused(rig.sandboxes.CreateSandbox(request))
    assert set(answer.fields) == {'metadata["a\\"\\u0000' + "x" * 61 + '…"]'}
