"""The error class for each status, its attributes, and that no error of gRPC is raised."""

import re
import threading

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as rpc

import sandpool
from sandpool import RetryPolicy, SandboxClient, errors
from tests.clients.python.state import Failure, State

CODES = [
    ("CANCELLED", errors.RequestCancelledError),
    ("UNKNOWN", errors.ServerError),
    ("INVALID_ARGUMENT", errors.ValidationError),
    ("DEADLINE_EXCEEDED", errors.ResourceTimeoutError),
    ("NOT_FOUND", errors.ResourceNotFoundError),
    ("ALREADY_EXISTS", errors.ResourceAlreadyExistsError),
    ("PERMISSION_DENIED", errors.PermissionDeniedError),
    ("RESOURCE_EXHAUSTED", errors.QuotaExceededError),
    ("FAILED_PRECONDITION", errors.ResourceStateError),
    ("ABORTED", errors.ConflictError),
    ("OUT_OF_RANGE", errors.ValidationError),
    ("UNIMPLEMENTED", errors.ServerError),
    ("INTERNAL", errors.ServerError),
    ("DATA_LOSS", errors.ServerError),
    ("UNAUTHENTICATED", errors.AuthenticationError),
]


@pytest.mark.parametrize(("name", "kind"), CODES)
def test_each_status_code_has_its_class(
    client: SandboxClient, state: State, name: str, kind: type[errors.SandpoolError]
):
    state.fail("GetPool", Failure(grpc.StatusCode[name], "what to do"))
    with pytest.raises(errors.SandpoolError) as caught:
        client.get_pool("p")
    assert type(caught.value) is kind
    assert caught.value.code == name
    assert "what to do" in str(caught.value) or name == "DEADLINE_EXCEEDED"
    assert not isinstance(caught.value, grpc.RpcError)


def test_every_status_code_is_covered():
    named = {name for name, _ in CODES} | {"OK", "UNAVAILABLE"}  # UNAVAILABLE is retried: test_retries.py
    assert named == {code.name for code in grpc.StatusCode}


@pytest.mark.parametrize(
    ("code", "reason", "resource_type", "kind"),
    [
        ("NOT_FOUND", "POOL_NOT_FOUND", "pool", errors.PoolNotFoundError),
        ("NOT_FOUND", "TEMPLATE_NOT_FOUND", "sandpool.v1.Template", errors.TemplateNotFoundError),
        ("NOT_FOUND", "SANDBOX_NOT_FOUND", "sandbox", errors.SandboxNotFoundError),
        ("NOT_FOUND", "SECRET_NOT_FOUND", "secret", errors.SecretNotFoundError),
        ("FAILED_PRECONDITION", "POOL_IN_USE", "pool", errors.PoolInUseError),
        ("FAILED_PRECONDITION", "TEMPLATE_IN_USE", "template", errors.TemplateInUseError),
        ("FAILED_PRECONDITION", "SECRET_IN_USE", "secret", errors.SecretInUseError),
        ("FAILED_PRECONDITION", "OTHER_IN_USE", "", errors.ResourceInUseError),
        ("FAILED_PRECONDITION", "SECRET_MISSING", "secret", errors.SecretUnavailableError),
        ("FAILED_PRECONDITION", "SECRET_UNREADABLE", "secret", errors.SecretUnavailableError),
        ("FAILED_PRECONDITION", "POOL_PAUSED", "pool", errors.PoolPausedError),
        ("FAILED_PRECONDITION", "POOL_DRAINED", "pool", errors.PoolPausedError),
        ("ALREADY_EXISTS", "SECRET_ALREADY_EXISTS", "secret", errors.ResourceAlreadyExistsError),
        ("RESOURCE_EXHAUSTED", "POOL_LIMIT_REACHED", "pool", errors.QuotaExceededError),
        ("RESOURCE_EXHAUSTED", "POOL_EMPTY", "pool", errors.PoolEmptyError),
        ("DEADLINE_EXCEEDED", "QUEUE_TIMEOUT", "pool", errors.ResourceTimeoutError),
        ("FAILED_PRECONDITION", "SANDBOX_STARTING", "sandbox", errors.SandboxNotReadyError),
        ("FAILED_PRECONDITION", "SANDBOX_TERMINATED", "sandbox", errors.SandboxNotReadyError),
        ("FAILED_PRECONDITION", "SOMETHING_NEW", "sandbox", errors.ResourceStateError),
        ("FAILED_PRECONDITION", "IMAGE_NOT_FOUND", "", errors.ResourceCreationError),
    ],
)
def test_reason_and_resource_select_the_class(client, state, code, reason, resource_type, kind):
    details = (
        rpc.ErrorInfo(reason=reason, domain="sandpool"),
        rpc.ResourceInfo(resource_type=resource_type, resource_name="it"),
    )
    state.fail("GetPool", Failure(grpc.StatusCode[code], "m", details))
    with pytest.raises(errors.SandpoolError) as caught:
        client.get_pool("p")
    assert type(caught.value) is kind
    assert (caught.value.reason, caught.value.resource_name) == (reason, "it")
    assert caught.value.resource_type == (resource_type.rpartition(".")[2].lower() or None)


def test_names_the_pool_in_use_and_the_cause_of_a_failed_start(client: SandboxClient, state: State):
    info = rpc.ErrorInfo(reason="POOL_IN_USE")
    resource = rpc.ResourceInfo(resource_type="pool", resource_name="pool-1")
    state.fail("DeletePool", Failure(grpc.StatusCode.FAILED_PRECONDITION, "in use", (info, resource)))
    with pytest.raises(errors.PoolInUseError) as in_use:
        client.delete_pool("p")
    assert in_use.value.resource_name == "pool-1"
    info = rpc.ErrorInfo(reason="PULL_FAILED")
    state.fail("CreateSandbox", Failure(grpc.StatusCode.FAILED_PRECONDITION, "no image", (info,)))
    with pytest.raises(errors.ResourceCreationError) as failed:
        client.create(image="i")
    assert failed.value.reason == "PULL_FAILED"


def test_lists_invalid_fields(client: SandboxClient, state: State):
    violations = [
        rpc.BadRequest.FieldViolation(field="cpus", description="must be more"),
        rpc.BadRequest.FieldViolation(field="name", description="must be shorter"),
    ]
    details = (rpc.ErrorInfo(reason="INVALID_FIELD"), rpc.BadRequest(field_violations=violations))
    state.fail("CreatePool", Failure(grpc.StatusCode.INVALID_ARGUMENT, "two wrong fields", details))
    with pytest.raises(ValueError, match="two wrong fields") as caught:
        client.create_pool(image="i")
    assert isinstance(caught.value, errors.ValidationError)
    assert caught.value.field == "cpus"
    assert caught.value.field_violations == (
        errors.FieldViolation("cpus", "must be more"),
        errors.FieldViolation("name", "must be shorter"),
    )


@pytest.mark.parametrize("reason", ["POOL_LIMIT_REACHED", "POOL_EMPTY"])
def test_an_exhausted_pool_is_not_retried(client: SandboxClient, state: State, reason: str):
    details = (rpc.ErrorInfo(reason=reason), rpc.RetryInfo(retry_delay=Duration(nanos=1_000_000)))
    state.fail("CreateSandbox", Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", details))
    with pytest.raises(errors.SandpoolError) as caught:
        client.create(pool_id="p")
    assert caught.value.retry_after == 0.001
    assert isinstance(caught.value, errors.QuotaExceededError) == (reason == "POOL_LIMIT_REACHED")
    assert len(state.sent("CreateSandbox")) == 1


def test_a_queue_timeout_keeps_the_message_of_the_server(client: SandboxClient, state: State):
    info = rpc.ErrorInfo(reason="QUEUE_TIMEOUT")
    state.fail("CreateSandbox", Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "none in 2 s; wait longer", (info,)))
    with pytest.raises(TimeoutError, match="none in 2 s; wait longer") as caught:
        client.create(pool_id="p", when_empty="wait", queue_timeout=2)
    assert isinstance(caught.value, errors.ResourceTimeoutError)
    assert caught.value.reason == "QUEUE_TIMEOUT"


def test_a_quota_error_names_the_limit_and_the_delay(client: SandboxClient, state: State):
    details = (
        rpc.ErrorInfo(reason="MAX_CONTAINERS"),
        rpc.QuotaFailure(violations=[rpc.QuotaFailure.Violation(subject="pool:p", description="3 of 3")]),
        rpc.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
    )
    state.fail("CreateSandbox", Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", details))
    with pytest.raises(errors.QuotaExceededError) as caught:
        client.create(pool_id="p")
    assert (caught.value.reason, caught.value.quota_subject) == ("MAX_CONTAINERS", "pool:p")
    assert caught.value.retry_after == 1.5
    assert len(state.sent("CreateSandbox")) == 1, "the caller decides whether to wait"


def test_a_call_that_exceeds_its_time_limit(client: SandboxClient, state: State):
    state.hanging.add("GetPool")
    with pytest.raises(TimeoutError, match="GetPool within the time limit; increase request_timeout") as caught:
        client.get_pool("p", request_timeout=0.1)
    assert isinstance(caught.value, errors.ResourceTimeoutError)
    assert caught.value.reason == "NO_RESPONSE"


def test_raises_an_error_in_a_stream(client: SandboxClient):
    with pytest.raises(errors.SandboxNotFoundError):
        next(client.watch_sandbox("nobody"))


def test_a_closed_client_raises(client: SandboxClient, address: str):
    client.close()
    client.close()
    for call in (
        lambda: next(client.list_pools()),
        lambda: next(client.watch_pools()),
        lambda: client.create(pool_id="p"),
    ):
        with pytest.raises(errors.ClientClosedError, match=address):
            call()


def test_closing_ends_calls_in_progress(client: SandboxClient, state: State):
    state.hanging.add("GetPool")
    caught: list[BaseException] = []

    def call() -> None:
        try:
            client.get_pool("p")
        except errors.SandpoolError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not state.sent("GetPool") and thread.is_alive():
        thread.join(0.01)
    client.close()
    thread.join(5)
    assert [type(error) for error in caught] == [errors.ClientClosedError]


def test_closing_ends_the_delay_before_a_retry(unused_address: str):
    client = SandboxClient(unused_address, retry=RetryPolicy(2, initial_delay=20, max_delay=20))
    timer = threading.Timer(0.3, client.close)
    timer.start()
    with pytest.raises(errors.ClientClosedError):
        next(client.list_pools())
    timer.join()


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_rejects_impossible_timeouts(client: SandboxClient, state: State, timeout: float):
    with pytest.raises(ValueError, match="greater than 0 seconds"):
        client.get_pool("p", request_timeout=timeout)
    with pytest.raises(ValueError, match="greater than 0 seconds"):
        SandboxClient(request_timeout=timeout)
    assert state.requests == []


def test_the_documented_tree_is_the_class_tree():
    classes = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert {name for _, name in tree()} == {kind.__name__ for kind in classes}
    for depth, name in tree():
        bases = [kind.__name__ for kind in getattr(errors, name).__mro__ if issubclass(kind, sandpool.SandpoolError)]
        assert len(bases) == depth + 1, f"{name} is documented at depth {depth}, below {bases}"


def tree() -> list[tuple[int, str]]:
    """The depth and the name of each class in the tree of the module's docstring."""
    found = re.findall(r"^    ([│├└─ ]*)(\w+(?:Error))\b", errors.__doc__ or "", re.MULTILINE)
    return [(len(indent) // 4, name) for indent, name in found if indent.strip() or name == "SandpoolError"]


def test_absent_attributes_are_none():
    error = errors.ServerError("broken")
    assert (error.code, error.reason, error.resource_type, error.resource_name) == (None,) * 4
    assert (error.quota_subject, error.retry_after, error.field_violations) == (None, None, ())
    assert errors.ValidationError("wrong").field is None
    assert errors.TunnelConnectionRefusedError("refused").port is None


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.SandboxConnectionError, ConnectionError),
        (errors.TunnelConnectionRefusedError, ConnectionRefusedError),
        (errors.PathNotFoundError, FileNotFoundError),
        (errors.ResourceTimeoutError, TimeoutError),
        (errors.ValidationError, ValueError),
    ],
)
def test_errors_are_also_builtin_errors(kind: type[errors.SandpoolError], builtin: type[Exception]):
    error = kind("what failed", code="CODE", reason="REASON")
    assert isinstance(error, builtin)
    assert (str(error), error.message, error.reason) == ("what failed", "what failed", "REASON")
