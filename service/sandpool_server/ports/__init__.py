"""What the use cases and the control loop need from the outside, as Protocols.

Implementations: `store` (database), `runtime` (container engine and agents), `control` (launcher), and the fakes of the
tests; one contract-test suite runs against every implementation of a port.

All methods are coroutines of the one event loop, never block it, and carry a deadline of their own: they end with a
result, a domain error or `Unavailable`, not never.
"""

from sandpool_server.ports.agents import Agents
from sandpool_server.ports.clock import Clock
from sandpool_server.ports.control import DiskReadings, Launcher, Line
from sandpool_server.ports.exposed_ports import PortStore
from sandpool_server.ports.relay import Relay
from sandpool_server.ports.requests import (
    ClaimRequest,
    ClaimResult,
    PoolDraft,
    RequestKey,
    SandboxFilter,
    claim_request_id,
)
from sandpool_server.ports.runtime import ImageConfig, MemberRef, Runtime, RuntimeEvent, RuntimeEventKind
from sandpool_server.ports.secrets import SecretStore
from sandpool_server.ports.store import Store

__all__ = [
    "Agents",
    "ClaimRequest",
    "ClaimResult",
    "Clock",
    "DiskReadings",
    "ImageConfig",
    "Launcher",
    "Line",
    "MemberRef",
    "PoolDraft",
    "PortStore",
    "Relay",
    "RequestKey",
    "Runtime",
    "RuntimeEvent",
    "RuntimeEventKind",
    "SandboxFilter",
    "SecretStore",
    "Store",
    "claim_request_id",
]
