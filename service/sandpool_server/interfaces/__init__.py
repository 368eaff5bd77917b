"""The interfaces (Protocols) between the use cases, the control loop and the infrastructure.

The implementations are in `store` (database), `runtime` (container engine and agents) and `control` (launcher). The
tests have fakes; the same contract tests run against every implementation of an interface.

All methods run on one event loop and do not block it. Each coroutine has its own deadline: it always finishes with a
result, a domain error or `Unavailable`.
"""

from sandpool_server.interfaces.agents import Agents
from sandpool_server.interfaces.clock import Clock
from sandpool_server.interfaces.control import DiskReadings, Launcher, Waiters
from sandpool_server.interfaces.exposed_ports import PortStore
from sandpool_server.interfaces.proxy import Proxy
from sandpool_server.interfaces.requests import (
    ClaimRequest,
    ClaimResult,
    PoolDraft,
    RequestKey,
    SandboxFilter,
    claim_request_id,
)
from sandpool_server.interfaces.runtime import ImageConfig, InstanceRef, Runtime, RuntimeEvent, RuntimeEventKind
from sandpool_server.interfaces.secrets import SecretStore
from sandpool_server.interfaces.store import Store

__all__ = [
    "Agents",
    "ClaimRequest",
    "ClaimResult",
    "Clock",
    "DiskReadings",
    "ImageConfig",
    "InstanceRef",
    "Launcher",
    "PoolDraft",
    "PortStore",
    "Proxy",
    "RequestKey",
    "Runtime",
    "RuntimeEvent",
    "RuntimeEventKind",
    "SandboxFilter",
    "SecretStore",
    "Store",
    "Waiters",
    "claim_request_id",
]
