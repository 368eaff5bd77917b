"""Implementations of `interfaces.Runtime` and `interfaces.Agents`: containers on a Docker Engine and their agents."""

from sandpool_server.runtime.agents import GrpcAgents
from sandpool_server.runtime.docker_engine import DockerRuntime
from sandpool_server.runtime.settings import Route, RuntimeSettings

__all__ = ["DockerRuntime", "GrpcAgents", "Route", "RuntimeSettings"]
