"""The public names, the address, and what each call carries."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import sandpool
import sandpool.sandbox
from sandpool import AsyncSandboxClient, RetryPolicy, SandboxClient
from sandpool._core import address as addresses
from sandpool._core import methods
from sandpool._core.call import Method
from sandpool.v1 import (
    file_service_pb2,
    monitor_service_pb2,
    pool_service_pb2,
    port_service_pb2,
    process_service_pb2,
    sandbox_service_pb2,
    secret_service_pb2,
    template_service_pb2,
)
from tests.clients.python.state import State

NAMES = [
    "ExecutionResult",
    "SandboxTemplate",
    "SandboxPoolInfo",
    "SandboxStatus",
    "AsyncPty",
    "Pty",
    "AsyncTunnel",
    "Tunnel",
    "AsyncPortConnection",
    "PortConnection",
    "ExposedPort",
    "LogEntry",
    "SandboxLogs",
    "SandboxStats",
    "AsyncFiles",
    "Files",
    "FileChange",
    "FileType",
    "WriteMode",
    "DirectoryListing",
    "FileEvent",
    "FileInfo",
    "FolderUpload",
    "AsyncCommandHandle",
    "CommandHandle",
    "OutputOverflow",
    "OutputStream",
    "ProcessHealth",
    "ProcessState",
    "RestartPolicy",
    "StdinMode",
    "HealthCheck",
    "KeptOutput",
    "OutputChunk",
    "ProcessEnd",
    "ProcessInfo",
    "ProcessOutput",
    "TerminalSize",
    "ProcessNotFoundError",
    "PathNotFoundError",
    "SandboxPending",
    "TunnelConnectionRefusedError",
    "TunnelPortNotAllowedError",
    "AsyncSandbox",
    "AsyncSandboxClient",
    "ClientClosedError",
    "CommandEndReason",
    "CommandResult",
    "CommandTimeoutError",
    "DiskEnforcement",
    "FieldViolation",
    "ImagePull",
    "PermissionDeniedError",
    "Pool",
    "PoolEmptyError",
    "PoolError",
    "PoolErrorReason",
    "PoolEvent",
    "PoolEventType",
    "PoolInUseError",
    "PoolNotFoundError",
    "PoolPausedError",
    "PoolState",
    "PoolStatus",
    "PullPolicy",
    "QuotaExceededError",
    "RemoteAPIError",
    "RequestCancelledError",
    "ResourceAlreadyExistsError",
    "ResourceChangedError",
    "ResourceCreationError",
    "ResourceInUseError",
    "ResourceNameConflictError",
    "ResourceNotFoundError",
    "ResourceStateError",
    "ResourceTimeoutError",
    "RetryPolicy",
    "Sandbox",
    "SandboxAuthenticationError",
    "SandboxClient",
    "SandboxConnectionError",
    "SandboxEndReason",
    "SandboxInfo",
    "SandboxNotFoundError",
    "SandboxNotReadyError",
    "SandboxStart",
    "SandboxState",
    "SandpoolError",
    "Secret",
    "SecretInUseError",
    "SecretNotFoundError",
    "SecretUnavailableError",
    "Template",
    "TemplateInUseError",
    "TemplateNotFoundError",
    "UNSET",
    "ValidationError",
    "WhenEmpty",
]
CLIENT_METHODS = [
    "for_localhost",
    "for_cloud",
    "connect",
    "create_and_connect",
    "get_or_create",
    "expose_ports",
    "unexpose_ports",
    "get_port_access",
    "get_logs",
    "address",
    "claim",
    "close",
    "create",
    "create_batch",
    "create_pool",
    "create_sandbox",
    "create_secret",
    "create_template",
    "delete",
    "delete_pool",
    "delete_sandbox",
    "delete_secret",
    "delete_template",
    "drain_pool",
    "get",
    "get_pool",
    "get_sandbox",
    "get_sandbox_status",
    "get_template",
    "list",
    "list_pools",
    "list_sandboxes",
    "list_secrets",
    "list_templates",
    "pause_pool",
    "resume_pool",
    "sandbox",
    "update_pool",
    "update_sandbox",
    "update_secret",
    "update_template",
    "wait_for_sandbox",
    "wait_for_pool",
    "watch_pools",
    "watch_sandbox",
]
SANDBOX_METHODS = [
    "close",
    "connect_port",
    "connect_pty",
    "create_pty",
    "create_tunnel",
    "delete",
    "delete_file",
    "download_file",
    "download_folder",
    "expose_ports",
    "files",
    "follow_output",
    "follow_stderr",
    "follow_stdout",
    "get_logs",
    "get_output",
    "get_port_access",
    "get_process",
    "get_stderr",
    "get_stdout",
    "info",
    "kill_process",
    "list_directory",
    "list_processes",
    "logs",
    "read",
    "read_file",
    "reconnect",
    "refresh",
    "restart_process",
    "run",
    "run_once",
    "send_signal",
    "start_process",
    "stats",
    "terminate",
    "tunnel",
    "unexpose_ports",
    "update",
    "upload_file",
    "upload_folder",
    "watch",
    "watch_stats",
    "write",
    "write_file",
    "write_stdin",
    "close_stdin",
    "status",
]
OTHER_METHODS = {
    "CommandHandle": "command_id detach ended close_input kill pid reconnect resize result send_input send_signal "
    "stderr_offset stdout_offset wait",
    "Files": "copy download download_folder exists glob list mkdir move read read_text remove stat stream upload "
    "upload_folder watch write",
    "Pty": "disconnect kill pid resize result send_input session_id wait",
    "PortConnection": "close end receive send",
    "Tunnel": "close local_host local_port open remote_port",
}


def names(kind: type) -> list[str]:
    """The public names of a class, apart from the inherited ones of its attributes."""
    return sorted(name for name in dir(kind) if not name.startswith("_"))


def test_the_public_names_are_these():
    assert sorted(sandpool.sandbox.__all__) == sorted(NAMES)
    assert sorted(sandpool.__all__) == sorted([*NAMES, "__version__"])
    for name in NAMES:
        assert getattr(sandpool, name) is getattr(sandpool.sandbox, name)
    for client in (SandboxClient, AsyncSandboxClient):
        assert names(client) == sorted(CLIENT_METHODS)
    attributes = [item.name for item in dataclasses.fields(sandpool.SandboxInfo)]
    assert names(sandpool.Sandbox) == sorted({*SANDBOX_METHODS, *attributes})
    for kind, methods_of_it in OTHER_METHODS.items():
        assert names(getattr(sandpool, kind)) == sorted(methods_of_it.split()), kind


def test_everything_public_is_documented():
    for name in NAMES:
        thing = getattr(sandpool, name)
        if not inspect.isclass(thing):
            continue
        assert inspect.getdoc(thing), name
        for attribute, value in vars(thing).items():
            if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{attribute}"


def test_every_method_of_the_contract_is_known():
    files = [
        *(pool_service_pb2, template_service_pb2, sandbox_service_pb2, secret_service_pb2),
        *(process_service_pb2, file_service_pb2, port_service_pb2, monitor_service_pb2),
    ]
    contract = {
        f"/{service.full_name}/{method.name}": (
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        )
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    ours = {
        method.path: (method.response.DESCRIPTOR.full_name, method.streams_requests, method.streams_answers)
        for method in vars(methods).values()
        if isinstance(method, Method)
    }
    assert ours == contract


def test_every_field_of_the_contract_reaches_the_dataclass():
    from sandpool.v1 import pool_pb2, sandbox_pb2, secret_pb2, template_pb2

    for message, plain in [
        (pool_pb2.Pool, sandpool.Pool),
        (pool_pb2.PoolStatus, sandpool.PoolStatus),
        (pool_pb2.PoolError, sandpool.PoolError),
        (pool_pb2.ImagePull, sandpool.ImagePull),
        (secret_pb2.Secret, sandpool.Secret),
        (template_pb2.Template, sandpool.Template),
        (sandbox_pb2.Sandbox, sandpool.SandboxInfo),
        (sandbox_service_pb2.RunCommandResponse, sandpool.CommandResult),
    ]:
        assert {item.name for item in dataclasses.fields(plain)} == set(message.DESCRIPTOR.fields_by_name), plain
    for item in dataclasses.fields(sandpool.SandboxInfo):
        assert isinstance(getattr(sandpool.Sandbox, item.name), property), item.name


def test_every_word_of_the_contract_is_in_its_enum():
    from sandpool.v1 import pool_pb2, sandbox_pb2

    for file, name, plain in [
        (pool_pb2, "PoolState", sandpool.PoolState),
        (pool_pb2, "PoolErrorReason", sandpool.PoolErrorReason),
        (pool_pb2, "PullPolicy", sandpool.PullPolicy),
        (pool_pb2, "DiskEnforcement", sandpool.DiskEnforcement),
        (sandbox_service_pb2, "WhenEmpty", sandpool.WhenEmpty),
        (pool_service_pb2, "WatchEventType", sandpool.PoolEventType),
        (sandbox_pb2, "SandboxState", sandpool.SandboxState),
        (sandbox_pb2, "SandboxStart", sandpool.SandboxStart),
        (sandbox_pb2, "SandboxEndReason", sandpool.SandboxEndReason),
        (sandbox_pb2, "CommandEndReason", sandpool.CommandEndReason),
    ]:
        values = file.DESCRIPTOR.enum_types_by_name[name].values_by_name
        prefix = next(value for value in values if value.endswith("_UNSPECIFIED")).removesuffix("UNSPECIFIED")
        words = {value.removeprefix(prefix).lower() for value in values} - {"unspecified", "bookmark"}
        said_by_the_server = set() if plain is sandpool.WhenEmpty else {"unknown"}
        assert {word.value for word in plain} == words | said_by_the_server, name


def test_every_field_of_a_request_has_its_argument():
    """What can be asked for over the wire can be asked for with the client, under the same name."""
    own = {"request_id", "update_mask", "page_token", "bookmark"}
    for file in (pool_service_pb2, template_service_pb2, sandbox_service_pb2, secret_service_pb2):
        for name, message in file.DESCRIPTOR.message_types_by_name.items():
            method = getattr(SandboxClient, OTHER_NAMES.get(name, snake(name.removesuffix("Request"))), None)
            if name.endswith("Request") and method is not None:
                arguments = {*inspect.signature(method).parameters, *ELSEWHERE.get(name, ())}
                assert {item.name for item in message.fields} - own <= arguments, name


OTHER_NAMES = {"CreateSandboxRequest": "create", "BatchCreateSandboxesRequest": "create_batch"}
ELSEWHERE = {
    "BatchCreateSandboxesRequest": ["sandbox"],  # its fields are the arguments
    "GetTemplateRequest": ["template_name"],  # it is called name
    "DeleteTemplateRequest": ["template_name"],
    "RunCommandRequest": [],
}


def snake(name: str) -> str:
    """`CreatePool` as `create_pool`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def test_the_core_does_no_input_or_output():
    package = importlib.import_module("sandpool._core")
    for module in pkgutil.iter_modules(package.__path__):
        names = vars(importlib.import_module(f"sandpool._core.{module.name}"))
        assert not {"grpc", "asyncio", "threading", "time", "socket", "os"} & set(names), module.name


@pytest.mark.parametrize(
    ("address", "target", "tls", "loopback"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", False, True),
        ("localhost", "localhost:50051", False, True),
        ("[::1]:7", "[::1]:7", False, True),
        ("::1", "[::1]:50051", False, True),
        ("http://host:80/", "host:80", False, False),
        ("grpc://host", "host:50051", False, False),
        ("https://host", "host:443", True, False),
        ("grpcs://host:1234", "host:1234", True, False),
        ("unix:/run/sandpool.sock", "unix:/run/sandpool.sock", False, True),
    ],
)
def test_addresses(address: str, target: str, tls: bool, loopback: bool):
    assert addresses.parse(address) == addresses.Endpoint(target, tls, loopback)


@pytest.mark.parametrize("address", ["ftp://host", "host:0", "host:x", "host:70000", "http://", "a b", "host/path"])
def test_wrong_addresses(address: str):
    with pytest.raises(ValueError, match="address"):
        SandboxClient(address)


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.setenv("SANDPOOL_ADDRESS", address)
    with SandboxClient() as client:
        assert client.list_pools() == []
        assert client.address == address
    monkeypatch.delenv("SANDPOOL_ADDRESS")
    with SandboxClient() as client:
        assert client.address == "127.0.0.1:50051"


def test_what_each_call_carries(monkeypatch: pytest.MonkeyPatch, address: str, state: State):
    monkeypatch.setenv("SANDPOOL_API_KEY", "from-environment")
    for client in (SandboxClient(address), SandboxClient(address, api_key="given")):
        with client:
            client.list_pools()
    monkeypatch.delenv("SANDPOOL_API_KEY")
    with SandboxClient(address) as client:
        client.list_pools()
    keys = [found.get("authorization") for found in state.metadata]
    assert keys == ["Bearer from-environment", "Bearer given", None]
    for found in state.metadata:
        assert found["user-agent"].startswith(f"sandpool-python/{sandpool.__version__} ")


def test_https_means_tls(address: str, state: State):
    with (
        SandboxClient(f"https://{address}", retry=RetryPolicy(max_attempts=1)) as client,
        pytest.raises(sandpool.SandboxConnectionError),
    ):
        client.list_pools()
    assert state.requests == [], "a server without TLS is not spoken to"
