"""The whole server on an engine and agents in memory: `python -m benchmarks.fake_server serve …`, with the same flags.

It is wired as the real one: only what `app` knows as its runtime and its agents is another.
"""

import sys
from collections.abc import Callable

from sandpool_server import app
from sandpool_server.cli.main import main
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


def _agents(key: bytes) -> FakeAgents:
    """The agents in that engine's containers."""
    del key
    return FakeAgents(_Runtime.made)


if __name__ == "__main__":
    vars(app).update(DockerRuntime=_Runtime, GrpcAgents=_agents)
    sys.exit(main())
