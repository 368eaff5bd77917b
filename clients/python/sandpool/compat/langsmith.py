"""The client of sandpool with the names of the sandbox API of the LangSmith SDK 0.7, which has templates and pools.

    from sandpool.compat.langsmith import SandboxClient

`AsyncSandboxClient` is the variant for asyncio. The guide "Migrate from LangSmith"
(docs/how-to/migrate-from-langsmith.md) lists all names, the differences and the omissions.
"""

from sandpool import (
    AsyncTunnel,
    AuthenticationError,
    CommandResult,
    OutputChunk,
    PortExposureDisabledError,
    ResourceAlreadyExistsError,
    ResourceInUseError,
    ResourceNotFoundError,
    SandboxConnectionError,
    SandboxNotReadyError,
    SandboxState,
    SandpoolError,
    Template,
    Tunnel,
    TunnelConnectionRefusedError,
)
from sandpool.compat._async.langsmith import AsyncCommandHandle, AsyncSandbox, AsyncSandboxClient
from sandpool.compat._core.langsmith import (
    CommandTimeoutError,
    Pool,
    QuotaExceededError,
    ResourceCreationError,
    ResourceTimeoutError,
    ValidationError,
)
from sandpool.compat._sync.langsmith import CommandHandle, Sandbox, SandboxClient

ExecutionResult = CommandResult
SandboxTemplate = Template
SandboxClientError = SandpoolError
SandboxAuthenticationError = AuthenticationError
ResourceNameConflictError = ResourceAlreadyExistsError
TunnelPortNotAllowedError = PortExposureDisabledError

__all__ = [
    "AsyncCommandHandle",
    "AsyncSandbox",
    "AsyncSandboxClient",
    "AsyncTunnel",
    "AuthenticationError",
    "CommandHandle",
    "CommandResult",
    "CommandTimeoutError",
    "ExecutionResult",
    "OutputChunk",
    "Pool",
    "PortExposureDisabledError",
    "QuotaExceededError",
    "ResourceAlreadyExistsError",
    "ResourceCreationError",
    "ResourceInUseError",
    "ResourceNameConflictError",
    "ResourceNotFoundError",
    "ResourceTimeoutError",
    "Sandbox",
    "SandboxAuthenticationError",
    "SandboxClient",
    "SandboxClientError",
    "SandboxConnectionError",
    "SandboxNotReadyError",
    "SandboxState",
    "SandboxTemplate",
    "SandpoolError",
    "Template",
    "Tunnel",
    "TunnelConnectionRefusedError",
    "TunnelPortNotAllowedError",
    "ValidationError",
]
