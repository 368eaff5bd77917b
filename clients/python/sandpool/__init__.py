"""A client for sandpool, a service that creates container sandboxes from pools of warm containers.

    from sandpool import SandboxClient

    with SandboxClient() as client:
        pool = client.create_pool(image="python:3.11-slim", warm_containers=3)
        client.wait_for_pool(pool.pool_id)
        with client.create(pool_id=pool.pool_id) as sandbox:
            print(sandbox.run("python3 --version").stdout)

`AsyncSandboxClient` is the variant for asyncio. The generated messages of the gRPC API are in `sandpool.v1`.
"""

from sandpool._async.client import AsyncSandboxClient
from sandpool._async.files import AsyncFiles
from sandpool._async.ports import AsyncPortConnection, AsyncPorts, AsyncTunnel
from sandpool._async.process import AsyncProcess
from sandpool._async.processes import AsyncProcesses
from sandpool._async.sandbox import AsyncSandbox
from sandpool._async.terminals import AsyncTerminal, AsyncTerminals
from sandpool._core.arguments import UNSET
from sandpool._core.retry import RetryPolicy
from sandpool._models.container import ContainerSpec, ReadinessProbe
from sandpool._models.enums import (
    DiskEnforcement,
    ExitReason,
    FileChange,
    FileType,
    OutputOverflow,
    OutputStream,
    PoolErrorReason,
    PoolEventType,
    PoolState,
    ProcessHealth,
    ProcessState,
    PullPolicy,
    RestartPolicy,
    SandboxState,
    StartType,
    TerminationReason,
    WhenEmpty,
    WriteMode,
)
from sandpool._models.file import DirectoryUpload, FileEvent, FileInfo
from sandpool._models.monitor import ExposedPort, LogEntry, SandboxMetrics
from sandpool._models.pool import ImagePull, Pool, PoolError, PoolEvent, PoolStatus, Secret, Template
from sandpool._models.process import (
    HealthCheck,
    OutputBuffer,
    OutputChunk,
    ProcessExit,
    ProcessInfo,
    ProcessOutput,
    TerminalSize,
)
from sandpool._models.sandbox import CommandResult, SandboxInfo
from sandpool._sync.client import SandboxClient
from sandpool._sync.files import Files
from sandpool._sync.ports import PortConnection, Ports, Tunnel
from sandpool._sync.process import Process
from sandpool._sync.processes import Processes
from sandpool._sync.sandbox import Sandbox
from sandpool._sync.terminals import Terminal, Terminals
from sandpool._version import __version__
from sandpool.errors import (
    AuthenticationError,
    ClientClosedError,
    CommandTimeoutError,
    ConflictError,
    FieldViolation,
    PathNotFoundError,
    PermissionDeniedError,
    PoolEmptyError,
    PoolInUseError,
    PoolNotFoundError,
    PoolPausedError,
    PortExposureDisabledError,
    ProcessNotFoundError,
    QuotaExceededError,
    RequestCancelledError,
    ResourceAlreadyExistsError,
    ResourceCreationError,
    ResourceInUseError,
    ResourceNotFoundError,
    ResourceStateError,
    ResourceTimeoutError,
    SandboxConnectionError,
    SandboxNotFoundError,
    SandboxNotReadyError,
    SandpoolError,
    SecretInUseError,
    SecretNotFoundError,
    SecretUnavailableError,
    ServerError,
    TemplateInUseError,
    TemplateNotFoundError,
    TunnelConnectionRefusedError,
    ValidationError,
)

__all__ = [
    "UNSET",
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
    "ValidationError",
    "WhenEmpty",
    "WriteMode",
    "__version__",
]
