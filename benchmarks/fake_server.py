"""The whole server on an engine and agents in memory: `python -m benchmarks.fake_server serve …`, with the same flags.

It is wired as the real one: only what `app` knows as its runtime and its agents is another.
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
    """The engine in memory, made as the real one is."""

    made: "_Runtime"
    route = "direct"

    def __init__(self, settings: RuntimeSettings, pull_changed: Callable[[str], None]) -> None:
        del settings
        super().__init__(pull_changed=pull_changed)
        type(self).made = self


class _Agents(FakeAgents):
    """The agents in that engine's containers, made as the real ones are."""

    def __init__(self, key: bytes) -> None:
        del key
        super().__init__(_Runtime.made)

    def connect(self, member_id: str, address: str) -> AbstractAsyncContextManager[Connection]:
        """Nothing goes on inside these sandboxes."""
        raise Unavailable("SANDBOX_UNREACHABLE", f"{member_id} at {address or 'no address'} is in memory")


if __name__ == "__main__":
    vars(app).update(DockerRuntime=_Runtime, GrpcAgents=_Agents)
    sys.exit(main())
