"""The client of sandpool with the names of the sandbox API of the Tensorlake SDK 0.5.

    from sandpool.compat.tensorlake import SandboxClient

`AsyncSandboxClient` is the variant for asyncio. The guide "Migrate from Tensorlake"
(docs/how-to/migrate-from-tensorlake.md) lists all names, the differences and the omissions.
"""

from sandpool import (
    AsyncTunnel,
    CommandResult,
    ExitReason,
    ExposedPort,
    FileInfo,
    HealthCheck,
    LogEntry,
    OutputChunk,
    Pool,
    PoolNotFoundError,
    ProcessNotFoundError,
    ProcessState,
    ResourceAlreadyExistsError,
    RestartPolicy,
    SandboxConnectionError,
    SandboxNotFoundError,
    SandboxNotReadyError,
    SandboxState,
    SandpoolError,
    ServerError,
    Tunnel,
)
from sandpool.compat._async.tensorlake import AsyncPty, AsyncSandbox, AsyncSandboxClient
from sandpool.compat._core.tensorlake import (
    ListDirectoryResponse,
    OutputResponse,
    PoolInUseError,
    ProcessInfo,
    SandboxInfo,
    SandboxLogsResponse,
    StdinMode,
)
from sandpool.compat._sync.tensorlake import Pty, Sandbox, SandboxClient

SandboxPoolInfo = Pool
SandboxStatus = SandboxState
TcpTunnel = Tunnel
AsyncTcpTunnel = AsyncTunnel
SandboxError = SandpoolError
SandboxPending = SandboxNotReadyError
RemoteAPIError = ServerError

__all__ = [
    "AsyncPty",
    "AsyncSandbox",
    "AsyncSandboxClient",
    "AsyncTcpTunnel",
    "AsyncTunnel",
    "CommandResult",
    "ExitReason",
    "ExposedPort",
    "FileInfo",
    "HealthCheck",
    "ListDirectoryResponse",
    "LogEntry",
    "OutputChunk",
    "OutputResponse",
    "Pool",
    "PoolInUseError",
    "PoolNotFoundError",
    "ProcessInfo",
    "ProcessNotFoundError",
    "ProcessState",
    "Pty",
    "RemoteAPIError",
    "ResourceAlreadyExistsError",
    "RestartPolicy",
    "Sandbox",
    "SandboxClient",
    "SandboxConnectionError",
    "SandboxError",
    "SandboxInfo",
    "SandboxLogsResponse",
    "SandboxNotFoundError",
    "SandboxNotReadyError",
    "SandboxPending",
    "SandboxPoolInfo",
    "SandboxState",
    "SandboxStatus",
    "SandpoolError",
    "ServerError",
    "StdinMode",
    "TcpTunnel",
    "Tunnel",
]
