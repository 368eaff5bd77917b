"""The status of each error: code, reason and details, without internal information."""

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

from sandpool.v1 import container_pb2
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
    OutOfRange,
    QueueTimeout,
    SandpoolError,
    Unavailable,
)
from sandpool_server.rpc.drain import ServerStopping
from sandpool_server.rpc.statuses import status_of
from sandpool_server.rpc.validation import RequestValidator
from tests.rpc.bases import BASES
from tests.rpc.conftest import ReportedError, Rig, refused

CODE = grpc.StatusCode

CASES = [
    (
        InvalidArgument(FieldViolation("image", "is wrong"), FieldViolation("env", "is invalid")),
        CODE.INVALID_ARGUMENT,
        "INVALID_FIELD",
        {BadRequest},
    ),
    (NotFound("pool", "web", "create it"), CODE.NOT_FOUND, "POOL_NOT_FOUND", {ResourceInfo}),
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
    (Exhausted("POOL_EMPTY", "no warm instance", "pool:web", 0.5), CODE.RESOURCE_EXHAUSTED, "POOL_EMPTY", {RetryInfo}),
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
        Exhausted("POOL_LIMIT_REACHED", "full", "pool:web", 2.5),
        CODE.RESOURCE_EXHAUSTED,
        "POOL_LIMIT_REACHED",
        {QuotaFailure, RetryInfo},
    ),
    (Unavailable("ENGINE_UNREACHABLE", "unreachable", 1.5), CODE.UNAVAILABLE, "ENGINE_UNREACHABLE", {RetryInfo}),
    (ServerStopping(), CODE.UNAVAILABLE, "SERVER_STOPPING", {RetryInfo}),
    (QueueTimeout("too slow"), CODE.DEADLINE_EXCEEDED, "QUEUE_TIMEOUT", set()),
    *(
        (LaunchFailed(reason, f"{reason}: do this"), code, reason.name, details)
        for reason, code, details in (
            (FailureReason.IMAGE_NOT_FOUND, CODE.FAILED_PRECONDITION, {PreconditionFailure}),
            (FailureReason.PULL_FAILED, CODE.FAILED_PRECONDITION, {PreconditionFailure}),
            (FailureReason.START_FAILED, CODE.FAILED_PRECONDITION, {PreconditionFailure}),
            (FailureReason.LIMIT_UNSUPPORTED, CODE.FAILED_PRECONDITION, {PreconditionFailure}),
            (FailureReason.ENGINE_UNREACHABLE, CODE.UNAVAILABLE, {RetryInfo}),
            (FailureReason.DISK_FULL, CODE.RESOURCE_EXHAUSTED, {QuotaFailure, RetryInfo}),
            (FailureReason.READINESS_TIMEOUT, CODE.DEADLINE_EXCEEDED, set()),
        )
    ),
]


async def fail(rig: Rig, error: BaseException) -> ReportedError:
    rig.fakes.faults.error = error
    return await refused(
        rig.sandboxes.CreateSandbox(
            s.CreateSandboxRequest(spec=container_pb2.ContainerSpec(image="i"), request_id="r-7")
        )
    )


@pytest.mark.parametrize(("error", "code", "reason", "details"), CASES, ids=lambda v: v if isinstance(v, str) else "")
async def test_each_error_has_its_code_and_details(rig: Rig, error: Any, code: Any, reason: str, details: set) -> None:
    with capture_logs() as logs:
        reported = await fail(rig, error)
    assert (reported.code, reported.reason, reported.message) == (code, reason, error.message)
    assert set(reported.details) == {ErrorInfo} | details
    assert [(line["event"], line["code"]) for line in logs] == [("call", code.name)]


def test_covers_every_error_class() -> None:
    def kinds(base: type) -> set[type]:
        return {base, *(kind for sub in base.__subclasses__() for kind in kinds(sub))}

    tried = {type(error) for error, *_ in CASES}
    assert kinds(SandpoolError) - {SandpoolError} - tried == set()
    assert {e.reason for e, *_ in CASES if isinstance(e, LaunchFailed)} == set(FailureReason)
    public = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert public - tried == {SandpoolError, IllegalTransition}


def test_rejects_error_of_base_class() -> None:
    with pytest.raises(TypeError):
        status_of(SandpoolError("X", "x"))


async def test_details_contain_resource_and_retry_delay(rig: Rig) -> None:
    reported = await fail(rig, CASES[0][0])
    assert reported.violations == [("image", "is wrong"), ("env", "is invalid")]
    resource = (await fail(rig, NotFound("pool", "web"))).details[ResourceInfo]
    assert (resource.resource_type, resource.resource_name) == ("pool", "web")
    reported = await fail(rig, Exhausted("POOL_LIMIT_REACHED", "full", "pool:web", 2.5))
    quota = reported.details[QuotaFailure].violations[0]
    assert (quota.subject, quota.description) == ("pool:web", "full")
    assert reported.details[RetryInfo].retry_delay.ToTimedelta().total_seconds() == 2.5
    reported = await fail(rig, FailedPrecondition("POOL_IN_USE", "2 sandboxes", "pool", "web"))
    failure = reported.details[PreconditionFailure].violations[0]
    assert (failure.type, failure.subject, failure.description) == ("POOL_IN_USE", "pool:web", "2 sandboxes")
    resource = reported.details[ResourceInfo]
    assert (resource.resource_type, resource.resource_name) == ("pool", "web")


@pytest.mark.parametrize("kind", ["pool", "template", "secret", "sandbox", "process", "file", "upload"])
def test_not_found_message_contains_next_action(kind: str) -> None:
    assert re.fullmatch(rf"{kind} 'x' does not exist; \w.{{10,}}", NotFound(kind, "x").message)
    assert NotFound(kind, "x", "create it").message == f"{kind} 'x' does not exist; create it"


@pytest.mark.parametrize("error", [RuntimeError("password 1234"), IllegalTransition("password 1234"), KeyError("1234")])
async def test_reports_internal_error_only_as_incident(rig: Rig, error: Exception) -> None:
    with capture_logs() as logs:
        reported = await fail(rig, error)
    assert (reported.code, reported.reason) == (CODE.INTERNAL, "INTERNAL")
    assert "1234" not in reported.message
    assert set(reported.details) == {ErrorInfo}
    incident = reported.metadata["incident"]
    assert incident in reported.message
    failure, line = logs
    assert (failure["incident"], failure["exc_info"], failure["log_level"]) == (incident, error, "error")
    assert (line["code"], line["incident"], line["request_id"]) == ("INTERNAL", incident, "r-7")


async def test_reports_internal_error_of_stream_only_as_incident(rig: Rig) -> None:
    rig.fakes.faults.error = RuntimeError("password 1234")
    reported = await refused(rig.pools.WatchPools(p.WatchPoolsRequest()).read())
    assert (reported.code, reported.reason) == (CODE.INTERNAL, "INTERNAL")
    assert "1234" not in reported.message


async def test_error_of_stream_has_details(rig: Rig) -> None:
    reported = await refused(rig.pools.WatchPools(p.WatchPoolsRequest(pool_ids=["absent"])).read())
    assert (reported.code, reported.reason) == (CODE.NOT_FOUND, "POOL_NOT_FOUND")
    assert not rig.fakes.pools.watchers


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument(*(FieldViolation(f"metadata[{'ü' * 300}{i}]", "€" * 900) for i in range(500))),
        NotFound("pool", "€" * 9000),
        FailedPrecondition("POOL_IN_USE", "\udc80" * 9000, "pool", "\n\0é" * 5000),
        Exhausted("POOL_LIMIT_REACHED", "€" * 9000, "ü" * 9000, 1),
        LaunchFailed(FailureReason.PULL_FAILED, "€\x07" * 9000),
        LaunchFailed(FailureReason.DISK_FULL, "€" * 9000),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_limits_size_of_status(rig: Rig, error: Exception) -> None:
    reported = await fail(rig, error)
    assert reported.code is not CODE.INTERNAL
    assert reported.reason in ("INVALID_FIELD", getattr(error.reason, "name", error.reason))
    # The size in HTTP/2: percent-encoded message, details in base64, 32 bytes per entry.
    size = sum(1 if 32 <= byte < 127 and byte != ord("%") else 3 for byte in reported.message.encode())
    size += (status_of(error).ByteSize() + 2) // 3 * 4 + 200
    assert size < 8192


async def test_counts_violations_that_are_omitted(rig: Rig) -> None:
    request = s.CreateSandboxRequest(
        spec=container_pb2.ContainerSpec(image="i", secret_names=[f"A B{i}" for i in range(60)])
    )
    reported = await refused(rig.sandboxes.CreateSandbox(request))
    assert reported.fields[:2] == ["spec.secret_names[0]", "spec.secret_names[1]"]
    assert 5 < len(reported.fields) < 60
    shown = reported.message.count("secret_names[")
    assert reported.message.endswith(f"; and {60 - shown} more")


async def test_does_not_check_entries_of_oversized_list(rig: Rig) -> None:
    request = s.BatchCreateSandboxesRequest(
        sandbox=s.CreateSandboxRequest(
            spec=container_pb2.ContainerSpec(image="i", secret_names=["A B"] * 100_000),
            metadata={str(i): "\0" for i in range(65)},
        )
    )
    reported = await refused(rig.sandboxes.BatchCreateSandboxes(request))
    assert reported.violations == [
        ("sandbox.spec.secret_names", "must have at most 64 entries, not 100000"),
        ("sandbox.metadata", "must have at most 64 entries, not 65"),
    ]


async def test_reports_only_first_violation_of_large_request(rig: Rig) -> None:
    request = s.RunCommandRequest(sandbox_id="one", argv=["a\0"] * 1001)
    reported = await refused(rig.sandboxes.RunCommand(request))
    assert reported.violations == [("argv[0]", "must not contain a NUL character")]


async def test_limits_length_of_mask(rig: Rig) -> None:
    request = p.UpdatePoolRequest(pool_id="x", update_mask={"paths": ["name"] * 101})
    assert (await refused(rig.pools.UpdatePool(request))).fields == ["update_mask"]


def test_every_list_of_a_request_has_a_limit() -> None:
    validator = RequestValidator()
    validator.warm(type(request) for request in BASES.values())
    assert all(bound.most > 0 for rules in validator._rules.values() for bound in rules.bounds)
    assert [bound.path for bound in validator._rules["sandpool.v1.BatchCreateSandboxesRequest"].bounds] == [
        "sandbox.spec.env",
        "sandbox.spec.entrypoint",
        "sandbox.spec.secret_names",
        "sandbox.spec.readiness_probe.command",
        "sandbox.metadata",
        "sandbox.env",
    ]


async def test_reports_all_violations_together(rig: Rig) -> None:
    request = s.BatchCreateSandboxesRequest(
        sandbox=s.CreateSandboxRequest(
            spec=container_pb2.ContainerSpec(cpus=0, secret_names=["A", "A B"]),
            metadata={"k": "v\0", "": "x"},
        ),
        count=0,
    )
    reported = await refused(rig.sandboxes.BatchCreateSandboxes(request))
    assert set(reported.fields) == {
        "sandbox.spec.image",
        "sandbox.spec.cpus",
        "sandbox.spec.secret_names[1]",
        'sandbox.metadata["k"]',
        'sandbox.metadata[""]',
        "count",
    }
    assert ('sandbox.metadata[""]', "the key must be at least 1 characters") in reported.violations


async def test_paths_of_use_case_violations_include_batch_field(rig: Rig) -> None:
    rig.fakes.faults.error = InvalidArgument(FieldViolation("env", "too much"), FieldViolation("request_id", "used"))
    request = s.CreateSandboxRequest(spec=container_pb2.ContainerSpec(image="i"))
    batch = s.BatchCreateSandboxesRequest(sandbox=request, count=2, request_id="r")
    assert (await refused(rig.sandboxes.BatchCreateSandboxes(batch))).fields == ["sandbox.env", "request_id"]
    assert (await refused(rig.sandboxes.CreateSandbox(request))).fields == ["env", "request_id"]


async def test_enum_violation_lists_valid_values(rig: Rig) -> None:
    reported = await refused(rig.sandboxes.ListSandboxes(s.ListSandboxesRequest(states=[1, 77])))
    names = "SANDBOX_STATE_STARTING, SANDBOX_STATE_RUNNING, SANDBOX_STATE_TERMINATING, SANDBOX_STATE_TERMINATED"
    assert reported.violations == [("states[1]", f"must be one of {names}")]


async def test_truncates_long_key_in_path(rig: Rig) -> None:
    key = 'a"\0' + "x" * 5000
    request = s.CreateSandboxRequest(spec=container_pb2.ContainerSpec(image="i"), metadata={key: ""})
    reported = await refused(rig.sandboxes.CreateSandbox(request))
    assert set(reported.fields) == {'metadata["a\\"\\u0000' + "x" * 61 + '…"]'}
