"""The public names, the address, and what each call carries."""

import dataclasses
import importlib
import inspect
import pkgutil
from functools import cached_property

import pytest

import sandpool
from sandpool import RetryPolicy, SandboxClient
from sandpool._core import address as addresses
from sandpool._core import methods, options
from sandpool._core.call import Method
from sandpool.v1 import (
    container_pb2,
    file_pb2,
    file_service_pb2,
    monitor_pb2,
    monitor_service_pb2,
    pool_pb2,
    pool_service_pb2,
    port_pb2,
    port_service_pb2,
    process_pb2,
    process_service_pb2,
    sandbox_pb2,
    sandbox_service_pb2,
    secret_pb2,
    secret_service_pb2,
    template_pb2,
    template_service_pb2,
)
from tests.clients.python.state import State

NAMES = [
    "AsyncFiles",
    "AsyncPortConnection",
    "AsyncPorts",
    "AsyncProcess",
    "AsyncProcesses",
    "AsyncSandbox",
    "AsyncSandboxClient",
    "AsyncTerminal",
    "AsyncTerminals",
    "AsyncTunnel",
    "AuthenticationError",
    "ClientClosedError",
    "CommandResult",
    "CommandTimeoutError",
    "ConflictError",
    "ContainerSpec",
    "DirectoryUpload",
    "DiskEnforcement",
    "ExitReason",
    "ExposedPort",
    "FieldViolation",
    "FileChange",
    "FileEvent",
    "FileInfo",
    "FileType",
    "Files",
    "HealthCheck",
    "ImagePull",
    "LogEntry",
    "OutputBuffer",
    "OutputChunk",
    "OutputOverflow",
    "OutputStream",
    "PathNotFoundError",
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
    "PortConnection",
    "PortExposureDisabledError",
    "Ports",
    "Process",
    "ProcessExit",
    "ProcessHealth",
    "ProcessInfo",
    "ProcessNotFoundError",
    "ProcessOutput",
    "ProcessState",
    "Processes",
    "PullPolicy",
    "QuotaExceededError",
    "ReadinessProbe",
    "RequestCancelledError",
    "ResourceAlreadyExistsError",
    "ResourceCreationError",
    "ResourceInUseError",
    "ResourceNotFoundError",
    "ResourceStateError",
    "ResourceTimeoutError",
    "RestartPolicy",
    "RetryPolicy",
    "Sandbox",
    "SandboxClient",
    "SandboxConnectionError",
    "SandboxInfo",
    "SandboxMetrics",
    "SandboxNotFoundError",
    "SandboxNotReadyError",
    "SandboxState",
    "SandpoolError",
    "Secret",
    "SecretInUseError",
    "SecretNotFoundError",
    "SecretUnavailableError",
    "ServerError",
    "StartType",
    "Template",
    "TemplateInUseError",
    "TemplateNotFoundError",
    "Terminal",
    "TerminalSize",
    "Terminals",
    "TerminationReason",
    "Tunnel",
    "TunnelConnectionRefusedError",
    "UNSET",
    "ValidationError",
    "WhenEmpty",
    "WriteMode",
]
METHODS = {
    "SandboxClient": "address close create create_batch create_pool create_secret create_template delete_pool "
    "delete_sandbox delete_secret delete_template get_pool get_sandbox get_secret get_template list_pools "
    "list_sandboxes list_secrets list_templates update_pool update_sandbox update_secret update_template "
    "wait_for_pool watch_pools watch_sandbox",
    "Sandbox": "close delete files info logs metrics name ports processes refresh run sandbox_id start_type state "
    "terminals update watch watch_metrics",
    "Files": "copy download download_directory exists glob list mkdir move read read_text remove stat stream upload "
    "upload_directory watch write",
    "Processes": "attach close_stdin follow get kill list output restart signal start write_stdin",
    "Process": "close_stdin detach kill pid process_id resize signal stderr_offset stdout_offset wait write_stdin",
    "Terminals": "attach create",
    "Terminal": "detach kill pid process_id resize wait write",
    "Ports": "connect expose list tunnel unexpose",
    "PortConnection": "close end receive send",
    "Tunnel": "close local_host local_port remote_port",
}
POSITIONAL = {
    "create_pool": ["name"],
    "create_template": ["name"],
    "create_batch": ["count"],
    "create_secret": ["name", "value"],
    "update_secret": ["name", "value"],
    "get_secret": ["name"],
    "delete_secret": ["name"],
    "watch_pools": ["pool_ids"],
    "run": ["command"],
    "start": ["command"],
    "create": ["command"],
    "signal": ["process_id", "signal"],
    "write_stdin": ["process_id", "data"],
    "write": ["path", "content", "data"],
    "resize": ["rows", "cols"],
    "expose": ["port"],
    "unexpose": ["port"],
    "connect": ["port"],
    "send": ["data"],
    "tunnel": ["remote_port"],
    "glob": ["pattern"],
    "move": ["source", "destination"],
    "copy": ["source", "destination"],
    "upload": ["local_path", "path"],
    "upload_directory": ["local_path", "path"],
    "download": ["path", "local_path"],
    "download_directory": ["path", "local_path"],
}
"""The arguments that can be positional, apart from the identifier of a resource and the path of a file."""
IDENTIFIERS = {"pool_id", "template_name", "sandbox_id", "process_id", "path"}


def names(kind: type) -> list[str]:
    """The public names of a class."""
    return sorted(name for name in dir(kind) if not name.startswith("_"))


def test_the_public_names():
    assert sorted(sandpool.__all__) == sorted([*NAMES, "__version__"])
    for kind, expected in METHODS.items():
        for variant in (kind, f"Async{kind}"):
            assert names(getattr(sandpool, variant)) == sorted(expected.split()), variant


def test_only_the_obvious_arguments_are_positional():
    for kind in METHODS:
        for name in names(getattr(sandpool, kind)):
            function = getattr(getattr(sandpool, kind), name)
            if not inspect.isfunction(function):
                continue
            positional = [
                parameter.name
                for parameter in inspect.signature(function).parameters.values()
                if parameter.kind is not inspect.Parameter.KEYWORD_ONLY and parameter.name != "self"
            ]
            allowed = {*POSITIONAL.get(name, []), *IDENTIFIERS}
            assert set(positional) <= allowed, f"{kind}.{name}"
            assert len(positional) <= 2, f"{kind}.{name}"


def test_everything_public_is_documented():
    for name in NAMES:
        found = getattr(sandpool, name)
        if not inspect.isclass(found):
            continue
        assert inspect.getdoc(found), name
        for attribute, value in vars(found).items():
            if not attribute.startswith("_") and (
                inspect.isfunction(value) or isinstance(value, (property, cached_property))
            ):
                assert inspect.getdoc(value), f"{name}.{attribute}"


def test_every_argument_of_an_option_group_is_documented():
    """The linter checks the other arguments."""
    groups = {
        "create_pool": options.AnyPoolOptions,
        "update_pool": options.PoolChanges,
        "create_template": options.TemplateOptions,
        "update_template": options.TemplateChanges,
        "create": options.AnySandboxOptions,
        "update_sandbox": options.SandboxChanges,
    }
    for name, group in groups.items():
        text = inspect.getdoc(getattr(SandboxClient, name)) or ""
        for argument in options.names(group):
            assert f"\n    {argument}: " in text, f"{name}: {argument}"
        assert set(options.names(group)) <= set(inspect.signature(getattr(SandboxClient, name)).parameters)


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
        method.path: (method.response.DESCRIPTOR.full_name, method.streams_requests, method.streams_responses)
        for method in vars(methods).values()
        if isinstance(method, Method)
    }
    assert ours == contract


def test_every_field_of_the_contract_is_in_its_dataclass():
    for message, model in [
        (container_pb2.ContainerSpec, sandpool.ContainerSpec),
        (container_pb2.ReadinessProbe, sandpool.ReadinessProbe),
        (pool_pb2.Pool, sandpool.Pool),
        (pool_pb2.PoolStatus, sandpool.PoolStatus),
        (pool_pb2.PoolError, sandpool.PoolError),
        (pool_pb2.ImagePull, sandpool.ImagePull),
        (secret_pb2.Secret, sandpool.Secret),
        (template_pb2.Template, sandpool.Template),
        (sandbox_pb2.Sandbox, sandpool.SandboxInfo),
        (sandbox_service_pb2.RunCommandResponse, sandpool.CommandResult),
        (process_pb2.Process, sandpool.ProcessInfo),
        (process_pb2.ProcessExit, sandpool.ProcessExit),
        (process_pb2.OutputBuffer, sandpool.OutputBuffer),
        (process_pb2.TerminalSize, sandpool.TerminalSize),
        (file_pb2.FileInfo, sandpool.FileInfo),
        (port_pb2.ExposedPort, sandpool.ExposedPort),
        (monitor_pb2.LogEntry, sandpool.LogEntry),
        (monitor_pb2.SandboxMetrics, sandpool.SandboxMetrics),
    ]:
        renamed = {OTHER_NAMES.get(name, name) for name in message.DESCRIPTOR.fields_by_name}
        if model in {sandpool.SandboxInfo, sandpool.Pool, sandpool.Template}:
            renamed = {"timeout_secs" if name == "timeout" else name for name in renamed}
        more = {"dropped_entries"} if model is sandpool.LogEntry else set()
        assert {item.name for item in dataclasses.fields(model)} == renamed | more, model


OTHER_NAMES = {"working_dir": "cwd"}


def test_resources_have_the_fields_of_their_specification():
    for model in (sandpool.Pool, sandpool.Template, sandpool.SandboxInfo):
        for name in ("image", "cpus", "memory_mb", "ephemeral_disk_mb", "env", "entrypoint", "secret_names"):
            assert isinstance(getattr(model, name), property), f"{model.__name__}.{name}"


def test_every_value_of_the_contract_is_in_its_enum():
    accepted_only = {sandpool.WhenEmpty, sandpool.OutputOverflow, sandpool.WriteMode}
    for file, name, kind in [
        (pool_pb2, "PoolState", sandpool.PoolState),
        (pool_pb2, "PoolErrorReason", sandpool.PoolErrorReason),
        (container_pb2, "PullPolicy", sandpool.PullPolicy),
        (pool_pb2, "DiskEnforcement", sandpool.DiskEnforcement),
        (sandbox_service_pb2, "WhenEmpty", sandpool.WhenEmpty),
        (pool_service_pb2, "WatchEventType", sandpool.PoolEventType),
        (sandbox_pb2, "SandboxState", sandpool.SandboxState),
        (sandbox_pb2, "StartType", sandpool.StartType),
        (sandbox_pb2, "TerminationReason", sandpool.TerminationReason),
        (sandbox_pb2, "ExitReason", sandpool.ExitReason),
        (process_pb2, "ProcessState", sandpool.ProcessState),
        (process_pb2, "ProcessHealth", sandpool.ProcessHealth),
        (process_pb2, "RestartPolicy", sandpool.RestartPolicy),
        (process_pb2, "OutputStream", sandpool.OutputStream),
        (process_service_pb2, "OutputOverflow", sandpool.OutputOverflow),
        (file_pb2, "FileType", sandpool.FileType),
        (file_pb2, "FileChange", sandpool.FileChange),
        (file_service_pb2, "WriteMode", sandpool.WriteMode),
    ]:
        values = file.DESCRIPTOR.enum_types_by_name[name].values_by_name
        prefix = next(value for value in values if value.endswith("_UNSPECIFIED")).removesuffix("UNSPECIFIED")
        expected = {value.removeprefix(prefix).lower() for value in values} - {"unspecified", "bookmark"}
        returned = set() if kind in accepted_only else {"unknown"}
        assert {member.value for member in kind} == expected | returned, name


def test_every_field_of_a_request_has_its_argument():
    """Everything that the API accepts can be passed to the client under the same name."""
    own = {"update_mask", "page_token", "bookmark", "sandbox", "timeout", "spec"}
    for file in (pool_service_pb2, template_service_pb2, sandbox_service_pb2, secret_service_pb2):
        for name, message in file.DESCRIPTOR.message_types_by_name.items():
            short = {"CreateSandboxRequest": "create", "BatchCreateSandboxesRequest": "create_batch"}.get(
                name, snake(name.removesuffix("Request"))
            )
            method = getattr(SandboxClient, short, None)
            if not name.endswith("Request") or method is None:
                continue
            fields = {item.name for item in message.fields}
            arguments = set(inspect.signature(method).parameters)
            assert fields - own <= arguments, name
            if "spec" in fields:
                spec = set(container_pb2.ContainerSpec.DESCRIPTOR.fields_by_name)
                assert spec <= arguments, name
            if "timeout" in fields:
                assert "timeout_secs" in arguments, name


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
def test_parses_addresses(address: str, target: str, tls: bool, loopback: bool):
    assert addresses.parse(address) == addresses.Endpoint(target, tls, loopback)


@pytest.mark.parametrize("address", ["ftp://host", "host:0", "host:x", "host:70000", "http://", "a b", "host/path"])
def test_rejects_wrong_addresses(address: str):
    with pytest.raises(ValueError, match="address"):
        SandboxClient(address)


def test_reads_the_address_from_the_environment(monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.setenv("SANDPOOL_ADDRESS", address)
    with SandboxClient() as client:
        assert list(client.list_pools()) == []
        assert client.address == address
    monkeypatch.delenv("SANDPOOL_ADDRESS")
    with SandboxClient() as client:
        assert client.address == "127.0.0.1:50051"


def test_each_call_carries_the_api_key_and_the_version(monkeypatch: pytest.MonkeyPatch, address: str, state: State):
    monkeypatch.setenv("SANDPOOL_API_KEY", "from-environment")
    for client in (SandboxClient(address), SandboxClient(address, api_key="given")):
        with client:
            list(client.list_pools())
    monkeypatch.delenv("SANDPOOL_API_KEY")
    with SandboxClient(address) as client:
        list(client.list_pools())
    keys = [found.get("authorization") for found in state.metadata]
    assert keys == ["Bearer from-environment", "Bearer given", None]
    for found in state.metadata:
        assert found["user-agent"].startswith(f"sandpool-python/{sandpool.__version__} ")


def test_https_means_tls(address: str, state: State):
    with (
        SandboxClient(f"https://{address}", retry=RetryPolicy(max_attempts=1)) as client,
        pytest.raises(sandpool.SandboxConnectionError),
    ):
        list(client.list_pools())
    assert state.requests == [], "the client sends nothing to a server without TLS"
