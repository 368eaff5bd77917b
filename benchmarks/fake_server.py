"""The server with an in-memory engine and in-memory agents: `python -m benchmarks.fake_server serve …`.

It has the same flags as the server, and differs only in the classes that `app` uses for the runtime and the agents.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from sandpool_server import app
from sandpool_server.cli.main import main
from sandpool_server.domain.errors import Unavailable
from sandpool_server.runtime.agent_channels import Connection
from sandpool_server.runtime.settings import RuntimeSettings
from tests.support.fake_agents import FakeAgents
from tests.support.fake_runtime import FakeRuntime


class _Runtime(FakeRuntime):
    """An in-memory engine with the constructor of the real runtime."""

    created: "_Runtime"
    route = "direct"

    def __init__(self, settings: RuntimeSettings, pull_changed: Callable[[str], None]) -> None:
        del settings
        super().__init__(pull_changed=pull_changed)
        type(self).created = self


class _Agents(FakeAgents):
    """In-memory agents of the engine's containers, with the constructor of the real agents."""

    def __init__(self, key: bytes) -> None:
        del key
        super().__init__(_Runtime.created)

    def connect(self, instance_id: str, address: str) -> AbstractAsyncContextManager[Connection]:
        """Raise an error, because these sandboxes have no data plane."""
        raise Unavailable("SANDBOX_UNREACHABLE", f"{instance_id} at {address or 'no address'} has no data plane")


if __name__ == "__main__":
    vars(app).update(DockerRuntime=_Runtime, GrpcAgents=_Agents)
    sys.exit(main())
