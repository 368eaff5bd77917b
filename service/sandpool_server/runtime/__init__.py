"""Containers and the agents inside them: what implements `ports.Runtime` and `ports.Agents`."""

from sandpool_server.runtime.agents import GrpcAgents
from sandpool_server.runtime.docker_engine import DockerRuntime
from sandpool_server.runtime.settings import Route, RuntimeSettings

__all__ = ["DockerRuntime", "GrpcAgents", "Route", "RuntimeSettings"]
